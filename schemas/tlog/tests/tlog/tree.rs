//! Roots, right edges and tiles, against RFC 6962 and at the limits of 64 bits.

use crate::common::{MemoryHashes, MemoryTiles, Uniform, head, leaves, mth};
use otherix_tlog::edge::{EdgeFormatError, TreeFullError};
use otherix_tlog::source::root;
use otherix_tlog::tile::{TILE_WIDTH, TileError, new_bundles, new_tiles};
use otherix_tlog::{Bundle, Hash, HashSource, Node, RightEdge, Tile, TileBuilder, TreeHead, VerifiedTiles};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn roots_are_those_of_certificate_transparency() {
    let contents: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut edge = RightEdge::default();
    for (size, expected) in roots.into_iter().enumerate() {
        assert_eq!(hex(edge.root().as_bytes()), expected, "{size}");
        assert_eq!(edge.head(), TreeHead::new(size as u64, edge.root()).unwrap());
        if let Some(content) = contents.get(size) {
            edge.append(Hash::of_leaf(content)).unwrap();
        }
    }
}

#[test]
fn hashes_print_and_parse_canonically() {
    let text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    assert_eq!(Hash::EMPTY_ROOT.to_string(), text);
    assert_eq!(text.parse(), Ok(Hash::EMPTY_ROOT));
    let altered = [
        text.replace("FU=", "FV="),  // bits set that are not used
        text.replace('+', "-"),      // another alphabet
        text.replace('=', ""),       // no padding
        text.replace("FU=", "F=="),  // 31 bytes
        text.replace("FU=", "FUA="), // 33 bytes
        format!("{text}\n"),
        format!(" {text}"),
        String::new(),
    ];
    for text in altered {
        assert!(text.parse::<Hash>().is_err(), "{text:?}");
    }
}

#[test]
fn an_empty_tree_has_one_root() {
    assert_eq!(TreeHead::new(0, Hash::EMPTY_ROOT), Ok(TreeHead::EMPTY));
    assert!(TreeHead::new(0, Hash::of_leaf(b"")).is_err());
    assert_eq!(RightEdge::EMPTY.head(), TreeHead::EMPTY);
    assert_eq!(VerifiedTiles::open(&TreeHead::EMPTY, MemoryTiles::default()).unwrap().edge(), &RightEdge::EMPTY);
}

proptest! {
    #[test]
    fn edges_are_the_same_however_they_come_about(size in 0_usize..700) {
        let leaves = leaves(size);
        let mut edge = RightEdge::EMPTY;
        edge.append_all(leaves.iter().copied()).unwrap();
        prop_assert_eq!(edge.root(), mth(&leaves));
        prop_assert_eq!(&RightEdge::from_bytes(&edge.to_bytes()).unwrap(), &edge);
        let mut hashes = MemoryHashes::of(&leaves);
        prop_assert_eq!(root(size as u64, &mut hashes), Ok(edge.root()));
        prop_assert_eq!(&RightEdge::from_source(size as u64, &mut hashes).unwrap(), &edge);
        let tiles = VerifiedTiles::open(&edge.head(), MemoryTiles::of(&leaves, &[size])).unwrap();
        prop_assert_eq!(tiles.edge(), &edge);
        // Anything but the exact number of hashes is refused.
        let bytes = edge.to_bytes();
        prop_assert_eq!(RightEdge::from_bytes(&[&bytes[..], &[0; 32]].concat()), Err(EdgeFormatError));
        prop_assert_eq!(RightEdge::from_bytes(&bytes[..bytes.len() - 1]), Err(EdgeFormatError));
    }
}

proptest! {
    // Large trees: each case takes some 300 ms.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn tiles_contain_every_node(sizes in prop::collection::btree_set(1_usize..67_000, 1..4), seed: u64) {
        let sizes: Vec<usize> = sizes.into_iter().collect();
        let leaves = leaves(*sizes.last().unwrap());
        let tiles = MemoryTiles::of(&leaves, &sizes);
        let mut hashes = MemoryHashes::of(&leaves);
        let mut nodes: Vec<(Node, Hash)> = hashes.0.iter().map(|(node, hash)| (*node, *hash)).collect();
        nodes.sort();
        for size in sizes {
            let root = root(size as u64, &mut hashes).unwrap();
            let head = TreeHead::new(size as u64, root).unwrap();
            let mut verified = VerifiedTiles::open(&head, tiles.clone()).unwrap();
            for (node, hash) in nodes.iter().skip((seed % 1009) as usize).step_by(1009) {
                let expected = if node.is_in(size as u64) { Ok(*hash) } else { Err(TileError::Node) };
                prop_assert_eq!(verified.hash(*node), expected, "{:?}", node);
            }
        }
    }

    #[test]
    fn a_builder_continues_where_another_stopped(old in 0_usize..70_000, more in 0_usize..600) {
        let leaves = leaves(old + more);
        let mut tiles = MemoryTiles::of(&leaves, &[old]);
        let mut whole = TileBuilder::default();
        whole.append_all(leaves[..old].iter().copied()).unwrap();
        let mut resumed = TileBuilder::resume(&whole.head(), &mut tiles).unwrap();
        whole.take_complete();
        for builder in [&mut whole, &mut resumed] {
            builder.append_all(leaves[old..].iter().copied()).unwrap();
        }
        prop_assert_eq!(whole.edge(), resumed.edge());
        prop_assert_eq!(whole.take_complete(), resumed.take_complete());
        prop_assert!(whole.partial().eq(resumed.partial()));
    }

    #[test]
    fn every_changed_bit_of_a_tile_is_found(
        size in 1_usize..70_000, choice: prop::sample::Index, bit: prop::sample::Index
    ) {
        let leaves = leaves(size);
        let head = head(&leaves);
        let mut tiles = MemoryTiles::of(&leaves, &[size]);
        let mut positions: Vec<Tile> = tiles.0.keys().copied().collect();
        positions.sort();
        let tile = positions[choice.index(positions.len())];
        let bytes = tiles.0.get_mut(&tile).unwrap();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = VerifiedTiles::open(&head, tiles)
            .and_then(|mut verified| verified.hashes(tile.level(), tile.index()).map(<[Hash]>::to_vec));
        let expected = if tile.is_partial() { TileError::Root } else { TileError::Tile(tile) };
        prop_assert_eq!(read, Err(expected));
    }
}

/// They are as they are stored, but no tile above them is believed.
#[test]
fn claimed_leaves_are_those_stored_below_tiles_of_the_tree() {
    let leaves = leaves(66_000);
    let (head, good) = (head(&leaves), MemoryTiles::of(&leaves, &[66_000]));
    let claimed = |tiles: &MemoryTiles, index| VerifiedTiles::open(&head, tiles.clone())?.claimed_leaves(index);
    for index in [0, 255, 256, 257] {
        let first = index as usize * 256;
        assert_eq!(claimed(&good, index).unwrap(), leaves[first..leaves.len().min(first + 256)]);
    }
    assert_eq!(claimed(&good, 258), Err(TileError::Node));
    let changed = |tile: Tile| {
        let mut tiles = good.clone();
        tiles.0.get_mut(&tile).unwrap()[40] ^= 1;
        tiles
    };
    let [stored, above] = [(0, 3), (1, 0)].map(|(level, index)| Tile::new(level, index, TILE_WIDTH).unwrap());
    let read = claimed(&changed(stored), 3).unwrap();
    assert!(read[0] == leaves[768] && read[1] != leaves[769]);
    assert_eq!(claimed(&changed(above), 3), Err(TileError::Tile(above)));
    let short = MemoryTiles(good.0.iter().map(|(tile, bytes)| (*tile, bytes[32..].to_vec())).collect());
    assert!(claimed(&short, 3).is_err());
    let mut missing = good.clone();
    missing.0.remove(&stored).unwrap();
    assert_eq!(claimed(&missing, 3), Err(TileError::Missing(stored)));
}

#[test]
fn swapped_short_and_missing_tiles_are_found() {
    let leaves = leaves(1000);
    let head = head(&leaves);
    let good = MemoryTiles::of(&leaves, &[1000]);
    let [one, two] = [0, 1].map(|index| Tile::new(0, index, TILE_WIDTH).unwrap());
    let partial = Tile::new(0, 3, 232).unwrap();
    let read = |change: &dyn Fn(&mut MemoryTiles)| {
        let mut tiles = good.clone();
        change(&mut tiles);
        VerifiedTiles::open(&head, tiles).and_then(|mut verified| verified.hashes(0, 0).map(<[Hash]>::len))
    };
    assert_eq!(read(&|_| ()), Ok(256));
    let swap = |tiles: &mut MemoryTiles| {
        let first = tiles.0.insert(one, good.0[&two].clone()).unwrap();
        tiles.0.insert(two, first);
    };
    assert_eq!(read(&swap), Err(TileError::Tile(one)));
    let shorten = |tiles: &mut MemoryTiles| tiles.0.get_mut(&one).unwrap().truncate(255 * 32);
    assert_eq!(read(&shorten), Err(TileError::Size(one)));
    let extend = |tiles: &mut MemoryTiles| tiles.0.get_mut(&one).unwrap().push(0);
    assert_eq!(read(&extend), Err(TileError::Size(one)));
    let extend = |tile: Tile| move |tiles: &mut MemoryTiles| tiles.0.get_mut(&tile).unwrap().extend([0; 32]);
    assert_eq!(read(&extend(one)), Err(TileError::Size(one)));
    assert_eq!(read(&extend(partial)), Err(TileError::Size(partial)));
    let remove = |tile: Tile| move |tiles: &mut MemoryTiles| drop(tiles.0.remove(&tile));
    assert_eq!(read(&remove(one)), Err(TileError::Missing(one)));
    assert_eq!(read(&remove(partial)), Err(TileError::Missing(partial)));
    // A partial tile may be deleted when the full one exists; its first hashes are the same.
    let mut grown = MemoryTiles::of(&crate::common::leaves(1024), &[1000, 1024]);
    grown.0.remove(&partial).unwrap();
    assert_eq!(VerifiedTiles::open(&head, &mut grown).unwrap().hashes(0, 3).unwrap().len(), 232);
    // The right tiles of a tree, with the root of another.
    let other = TreeHead::new(1000, Hash::of_leaf(b"")).unwrap();
    assert_eq!(VerifiedTiles::open(&other, good.clone()).unwrap_err(), TileError::Root);
    let mut verified = VerifiedTiles::open(&head, good.clone()).unwrap();
    for (level, index) in [(0, 4), (1, 1), (2, 0), (7, 0), (8, 0), (u8::MAX, u64::MAX)] {
        assert_eq!(verified.hashes(level, index).map(<[Hash]>::len), Err(TileError::Node), "{level} {index}");
    }
}

#[test]
fn tiles_are_those_of_the_specification() {
    let count = |level: u8, partial: bool| {
        new_tiles(0, 70_000).filter(|tile| tile.level() == level && tile.is_partial() == partial).count()
    };
    assert_eq!([count(0, false), count(0, true), count(1, false)], [273, 1, 1]);
    assert_eq!([count(1, true), count(2, false), count(2, true), count(3, true)], [1, 0, 1, 0]);
    let paths = |old, new| new_tiles(old, new).map(|tile| tile.to_string()).collect::<Vec<_>>();
    assert_eq!(paths(0, 256), ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(paths(255, 257), ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]);
    assert_eq!(paths(257, 258), ["tile/0/001.p/2"]);
    assert_eq!(paths(300, 300), [""; 0]);
    assert_eq!(
        new_bundles(255, 257).map(|bundle| bundle.to_string()).collect::<Vec<_>>(),
        ["tile/entries/000", "tile/entries/001.p/1"]
    );
}

#[test]
fn bundles_encode_and_decode() {
    let entries = [&b"one"[..], b"", &[7; 65_535]];
    let bundle = Bundle::new(5, 3).unwrap();
    assert_eq!((bundle.first_leaf(), bundle.tile()), (1280, Tile::new(0, 5, 3)));
    let bytes = bundle.encode(entries).unwrap();
    assert_eq!(bytes[..9], *b"\0\x03one\0\0\xff\xff");
    assert_eq!(bundle.decode(&bytes).unwrap(), entries);
    let hashes = entries.map(Hash::of_leaf);
    assert_eq!(bundle.decode_verified(&bytes, &hashes).unwrap().unwrap(), entries);
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(bundle.decode_verified(&altered, &hashes), Ok(None));
    assert_eq!(bundle.decode_verified(&bytes, &hashes[..2]), Ok(None));
    for end in 0..bytes.len() {
        assert!(bundle.decode(&bytes[..end]).is_err(), "{end}");
    }
    for more in [&[0][..], &[0, 0], &[0, 1, 2]] {
        assert!(bundle.decode(&[&bytes[..], more].concat()).is_err(), "{more:?}");
    }
    assert!(bundle.encode([vec![0; 65_536], vec![], vec![]]).is_err());
    assert!(bundle.encode(["one", "two"]).is_err());
}

#[test]
fn trees_of_any_size_have_roots_and_tiles() {
    let mut uniform = Uniform::new();
    for size in [1, 2, 3, 255, 256, 257, 65_535, 65_536, 65_537, (1 << 56) - 1, 1 << 56, (1 << 63) - 1, 1 << 63] {
        for size in [size, u64::MAX - size] {
            let expected = root(size, &mut uniform).unwrap();
            let head = TreeHead::new(size, expected).unwrap();
            let mut edge = RightEdge::from_source(size, &mut uniform).unwrap();
            assert_eq!(edge.root(), expected);
            let leaf = uniform.leaf();
            let mut verified = VerifiedTiles::open(&head, &mut uniform).unwrap();
            assert_eq!(verified.hash(Node::leaf(size - 1)), Ok(leaf), "{size}");
            assert_eq!(verified.hash(Node::leaf(size)), Err(TileError::Node), "{size}");
            let mut builder = TileBuilder::resume(&head, &mut uniform).unwrap();
            edge.append(leaf).unwrap();
            builder.append(leaf).unwrap();
            assert_eq!(edge.root(), root(size + 1, &mut uniform).unwrap(), "{size}");
            assert_eq!(builder.edge(), &edge);
            let mut written: Vec<Tile> = builder.take_complete().iter().map(|tile| tile.tile()).collect();
            written.extend(builder.partial().map(|tile| tile.tile()));
            for tile in new_tiles(size, size + 1) {
                assert!(written.contains(&tile), "{size} {tile}");
            }
        }
    }
}

#[test]
fn a_full_tree_refuses_leaves() {
    let mut uniform = Uniform::new();
    let mut edge = RightEdge::from_source(u64::MAX, &mut uniform).unwrap();
    let before = edge.clone();
    assert_eq!(edge.append(uniform.leaf()), Err(TreeFullError));
    assert_eq!(edge, before);
    let mut builder = TileBuilder::resume(&edge.head(), &mut uniform).unwrap();
    assert_eq!(builder.append(uniform.leaf()), Err(TreeFullError));
    assert_eq!(builder.edge(), &before);
}
