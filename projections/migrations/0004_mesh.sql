-- A node's place in the mesh: all three, or none for a node that is not in it.
ALTER TABLE nodes ADD COLUMN mesh_address TEXT;
ALTER TABLE nodes ADD COLUMN mesh_public_key TEXT;
ALTER TABLE nodes ADD COLUMN mesh_endpoint TEXT;
