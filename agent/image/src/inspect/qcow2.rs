//! The header and tables of qcow2 images, as QEMU's `docs/interop/qcow2.txt` specifies them. All numbers are
//! big-endian.

use std::io::{Read, Seek};

use super::source::Source;
use super::{InspectError, METADATA_MAX};

/// Length of the header of version 2, which version 3 extends.
const V2_HEADER: u32 = 72;
/// Length of the header of version 3, at least.
const V3_HEADER: u32 = 104;
/// Extensions and the header are within the first cluster, and clusters have at most 2 MiB.
const FIRST_CLUSTER_MAX: usize = 2 << 20;

/// The image's disk has been changed without updating the refcounts.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const LAZY_REFCOUNTS: u64 = 1;
const BITMAPS: u64 = 1;
const RAW_EXTERNAL: u64 = 1 << 1;

const BACKING_FORMAT: u32 = 0xe279_2aca;
const BITMAPS_EXTENSION: u32 = 0x2385_2875;
const ENCRYPTION_HEADER: u32 = 0x0537_be77;
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// Entries of L1 and L2 tables: where a table or cluster is.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Entries of L1 and L2 tables: the refcount is 1.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Entries of L2 tables: reads as zeros.
const ZERO: u64 = 1;

/// The largest L1 table and refcount table that QEMU opens, in bytes (`block/qcow2.h`).
const L1_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_MAX: u64 = 8 << 20;

/// Fields that are needed after the header has been checked.
struct Header {
    version: u32,
    length: u32,
    cluster_bits: u32,
    virtual_size: u64,
    l1_size: u64,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u64,
    extended_l2: bool,
}

impl Header {
    const fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table, which occupies one cluster.
    const fn l2_entries(&self) -> u64 {
        self.cluster() / if self.extended_l2 { 16 } else { 8 }
    }

    const fn is_aligned(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster())
    }
}

/// Checks that the file is a self-contained image, and returns the size of its disk, in bytes.
pub(super) fn check<R: Read + Seek>(source: &mut Source<R>) -> Result<u64, InspectError> {
    let header = header(source)?;
    extensions(source, &header)?;
    refcounts(source, &header)?;
    let tables = l1(source, &header)?;
    for table in tables {
        l2(source, &header, table)?;
    }
    Ok(header.virtual_size)
}

fn header<R: Read + Seek>(source: &mut Source<R>) -> Result<Header, InspectError> {
    let bytes = Fields(source.read_up_to(0, 112)?);
    let version = bytes.u32(4, "version")?;
    if !(2..=3).contains(&version) {
        return Err(InspectError::Version { version });
    }
    if bytes.u64(8, "backing_file_offset")? != 0 || bytes.u32(16, "backing_file_size")? != 0 {
        return Err(InspectError::BackingFile);
    }
    let cluster_bits = bytes.u32(20, "cluster_bits")?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(InspectError::Header { field: "cluster_bits", value: cluster_bits.into() });
    }
    if bytes.u32(32, "crypt_method")? != 0 {
        return Err(InspectError::Encrypted);
    }
    if bytes.u32(60, "nb_snapshots")? != 0 || bytes.u64(64, "snapshots_offset")? != 0 {
        return Err(InspectError::Snapshots);
    }
    let mut header = Header {
        version,
        length: V2_HEADER,
        cluster_bits,
        virtual_size: bytes.u64(24, "size")?,
        l1_size: bytes.u32(36, "l1_size")?.into(),
        l1_offset: bytes.u64(40, "l1_table_offset")?,
        refcount_offset: bytes.u64(48, "refcount_table_offset")?,
        refcount_clusters: bytes.u32(56, "refcount_table_clusters")?.into(),
        extended_l2: false,
    };
    if version == 3 {
        version_3(&bytes, &mut header)?;
    }
    Ok(header)
}

/// The fields that version 3 has added.
fn version_3(bytes: &Fields, header: &mut Header) -> Result<(), InspectError> {
    let incompatible = bytes.u64(72, "incompatible_features")?;
    if incompatible & (DIRTY | CORRUPT) != 0 {
        return Err(InspectError::Unclean);
    }
    let autoclear = bytes.u64(88, "autoclear_features")?;
    if incompatible & EXTERNAL_DATA != 0 || autoclear & RAW_EXTERNAL != 0 {
        return Err(InspectError::DataFile);
    }
    if autoclear & BITMAPS != 0 {
        return Err(InspectError::Bitmaps);
    }
    let compatible = bytes.u64(80, "compatible_features")?;
    for (set, bits) in [
        ("incompatible", incompatible & !(COMPRESSION_TYPE | EXTENDED_L2)),
        ("compatible", compatible & !LAZY_REFCOUNTS),
        ("autoclear", autoclear),
    ] {
        if bits != 0 {
            return Err(InspectError::Features { set, bits });
        }
    }
    let refcount_order = bytes.u32(96, "refcount_order")?;
    if refcount_order > 6 {
        return Err(InspectError::Header { field: "refcount_order", value: refcount_order.into() });
    }
    header.length = bytes.u32(100, "header_length")?;
    let valid = header.length >= V3_HEADER && header.length.is_multiple_of(8);
    if !valid || u64::from(header.length) > header.cluster() {
        return Err(InspectError::Header { field: "header_length", value: header.length.into() });
    }
    // 0 is zlib, 1 zstd. The field is there if the header is long enough; the feature bit says that it is not 0.
    let compression = if header.length > V3_HEADER { bytes.u8(104, "compression_type")? } else { 0 };
    if compression > 1 || (compression != 0) != (incompatible & COMPRESSION_TYPE != 0) {
        return Err(InspectError::Header { field: "compression_type", value: compression.into() });
    }
    header.extended_l2 = incompatible & EXTENDED_L2 != 0;
    if header.extended_l2 && header.cluster_bits < 14 {
        return Err(InspectError::Header { field: "cluster_bits", value: header.cluster_bits.into() });
    }
    Ok(())
}

/// Extensions follow the header, up to the end of the first cluster.
fn extensions<R: Read + Seek>(source: &mut Source<R>, header: &Header) -> Result<(), InspectError> {
    let end = usize::try_from(header.cluster()).unwrap_or(FIRST_CLUSTER_MAX).min(FIRST_CLUSTER_MAX);
    let start = u64::from(header.length);
    let bytes = Fields(source.read_up_to(start, end.saturating_sub(usize::try_from(start).unwrap_or(end)))?);
    let mut at = 0_usize;
    // The last one may be left out if the cluster is full.
    while at.saturating_add(8) <= bytes.0.len() {
        let (kind, length) = (bytes.u32(at, "extension")?, bytes.u32(at.saturating_add(4), "extension")?);
        at = at.saturating_add(8);
        let end = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if end > bytes.0.len() {
            return Err(InspectError::Header { field: "extension length", value: length.into() });
        }
        match kind {
            0 => return Ok(()),
            BACKING_FORMAT => return Err(InspectError::BackingFile),
            BITMAPS_EXTENSION => return Err(InspectError::Bitmaps),
            ENCRYPTION_HEADER => return Err(InspectError::Encrypted),
            DATA_FILE_NAME => return Err(InspectError::DataFile),
            // The names of feature bits, and those that QEMU ignores.
            _ => {}
        }
        at = end.next_multiple_of(8);
    }
    Ok(())
}

/// The refcount table and the blocks that it refers to are within the file.
fn refcounts<R: Read + Seek>(source: &mut Source<R>, header: &Header) -> Result<(), InspectError> {
    let (offset, clusters) = (header.refcount_offset, header.refcount_clusters);
    let bytes = clusters.saturating_mul(header.cluster());
    if bytes == 0 || bytes > REFCOUNT_TABLE_MAX {
        return Err(InspectError::Header { field: "refcount_table_clusters", value: clusters });
    }
    if offset == 0 || !header.is_aligned(offset) || !source.has(offset, bytes) {
        return Err(InspectError::Outside { what: "the refcount table", offset });
    }
    let len = source.len();
    source.entries(offset, bytes / 8, |block| {
        if block & SECTOR_MASK != 0 {
            return Err(InspectError::Reserved { table: "refcount table", entry: block });
        }
        if !header.is_aligned(block) || block >= len {
            return Err(InspectError::Outside { what: "a refcount block", offset: block });
        }
        Ok(())
    })
}

/// The bits below a sector's size.
const SECTOR_MASK: u64 = super::SECTOR - 1;

/// Checks the L1 table, and returns where the L2 tables are.
fn l1<R: Read + Seek>(source: &mut Source<R>, header: &Header) -> Result<Vec<u64>, InspectError> {
    let per_entry = header.l2_entries().saturating_mul(header.cluster());
    let needed = header.virtual_size.div_ceil(per_entry);
    let bytes = header.l1_size.saturating_mul(8);
    if header.l1_size < needed || bytes > L1_MAX {
        return Err(InspectError::Header { field: "l1_size", value: header.l1_size });
    }
    let offset = header.l1_offset;
    if offset == 0 || !header.is_aligned(offset) || !source.has(offset, bytes) {
        return Err(InspectError::Outside { what: "the L1 table", offset });
    }
    let metadata = needed.saturating_mul(header.cluster()).saturating_add(bytes);
    if metadata > METADATA_MAX {
        return Err(InspectError::Metadata { bytes: metadata });
    }
    let len = source.len();
    let mut tables = Vec::new();
    source.entries(offset, header.l1_size, |entry| {
        let table = entry & OFFSET;
        if entry & !(OFFSET | COPIED) != 0 {
            return Err(InspectError::Reserved { table: "L1 table", entry });
        }
        if table == 0 {
            return Ok(());
        }
        if !header.is_aligned(table) || table.saturating_add(header.cluster()) > len {
            return Err(InspectError::Outside { what: "an L2 table", offset: table });
        }
        tables.push(table);
        Ok(())
    })?;
    // Entries behind the end of the disk are not used, and would add tables to those that were counted above.
    if u64::try_from(tables.len()).unwrap_or(u64::MAX) > needed {
        return Err(InspectError::Header { field: "l1_size", value: header.l1_size });
    }
    Ok(tables)
}

/// The clusters that an L2 table refers to are within the file. The last cluster of a file may be shorter.
fn l2<R: Read + Seek>(source: &mut Source<R>, header: &Header, table: u64) -> Result<(), InspectError> {
    let len = source.len();
    // A compressed cluster's entry: offset below this bit, number of further sectors above.
    let compressed_offset = (1_u64 << (62_u32.saturating_sub(header.cluster_bits.saturating_sub(8)))) - 1;
    let zero = if header.version == 3 && !header.extended_l2 { ZERO } else { 0 };
    let mut is_bitmap = header.extended_l2;
    source.entries(table, header.cluster() / 8, |entry| {
        // With extended entries, every second one is the bitmap of subclusters.
        is_bitmap = header.extended_l2 && !is_bitmap;
        if is_bitmap {
            return Ok(());
        }
        if entry & COMPRESSED != 0 {
            let offset = entry & compressed_offset;
            if entry & COPIED != 0 {
                return Err(InspectError::Reserved { table: "L2 table", entry });
            }
            return if offset < len { Ok(()) } else { outside_data(offset) };
        }
        if entry & !(OFFSET | COPIED | zero) != 0 {
            return Err(InspectError::Reserved { table: "L2 table", entry });
        }
        let offset = entry & OFFSET;
        if offset == 0 || (header.is_aligned(offset) && offset < len) { Ok(()) } else { outside_data(offset) }
    })
}

fn outside_data(offset: u64) -> Result<(), InspectError> {
    Err(InspectError::Outside { what: "a cluster", offset })
}

/// Bytes with fields at fixed positions.
struct Fields(Vec<u8>);

impl Fields {
    fn take<const N: usize>(&self, at: usize, field: &'static str) -> Result<[u8; N], InspectError> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<N>());
        bytes.copied().ok_or(InspectError::Outside { what: field, offset: u64::try_from(at).unwrap_or(u64::MAX) })
    }

    fn u8(&self, at: usize, field: &'static str) -> Result<u8, InspectError> {
        self.take(at, field).map(u8::from_be_bytes)
    }

    fn u32(&self, at: usize, field: &'static str) -> Result<u32, InspectError> {
        self.take(at, field).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize, field: &'static str) -> Result<u64, InspectError> {
        self.take(at, field).map(u64::from_be_bytes)
    }
}
