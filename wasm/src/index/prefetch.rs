//! Prefetching for many lookups: loads whose only use is that the lookups which follow do not wait for memory one after the
//! other. In a large cache a lookup waits for its bucket, then for its record, and each time for most of a hundred
//! nanoseconds. A processor makes many loads at the same time if none needs the result of another (group prefetching: Chen,
//! Ailamaki, Gibbons and Mowry, ICDE 2004; MICA does it for the requests of one batch). WebAssembly has no instruction for a
//! prefetch, so these are ordinary loads.

use crate::format::region::Region;
use crate::index::entry::fingerprint_of;
use crate::index::key::bucket_of;
use crate::index::probe::{load_entry, ways_with};
use crate::sync::Acquire;

/// Keys of a group. More would push the first ones out of the fastest cache before they are read.
pub const GROUP: usize = 32;
/// Bytes of a cache line.
const LINE: u32 = 64;
/// Lines of a record that are loaded: header, key, and a short value.
const LINES: u32 = 3;

/// Loads the buckets of these hashes, and then the beginnings of the records that probably are theirs.
pub fn prefetch(region: &Region, hashes: &[u64]) {
    let geometry = &region.geometry;
    // Acquire, so that the compiler keeps the loads although their results are unused.
    let touch = |at: u32| {
        let _ = region.word(at).load(Acquire);
    };
    // Nothing but loads in each loop, so that the processor comes to the next load before it has the last one.
    for &hash in hashes {
        let bucket_at = geometry.bucket(bucket_of(geometry, hash));
        touch(bucket_at);
        touch(bucket_at + LINE);
    }
    let mut records = [0; GROUP];
    for (record_at, &hash) in records.iter_mut().zip(hashes) {
        let (bucket, fingerprint) = (bucket_of(geometry, hash), fingerprint_of(hash));
        *record_at = ways_with(region, bucket, fingerprint)
            .map(|way| load_entry(region, geometry.entry(bucket, way)))
            .find(|entry| entry.fingerprint() == fingerprint && entry.is_live())
            .map_or(0, |entry| entry.at());
    }
    for record_at in records {
        // An entry may be foreign bytes, or none was found.
        if geometry.segment_of(record_at).is_some() {
            let end = geometry.size - LINE;
            (0..LINES).for_each(|line| touch((record_at + line * LINE).min(end)));
        }
    }
}
