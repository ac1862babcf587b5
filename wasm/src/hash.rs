//! The hash of a key: XXH64's rounds (xxHash by Yann Collet) over whole words, seeded per region so that nobody who
//! does not know the seed can aim keys at one bucket.
//!
//! Bucket and tag are taken from opposite ends of the hash; were they to share bits, entries of one bucket would have
//! similar tags.

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// Hashes `words` (the key, zero-padded) with a discriminator (its length and kind) and the region's seed.
#[inline]
pub fn hash(words: &[u64], discriminator: u64, seed: u64) -> u64 {
    let mut h = seed.wrapping_add(P5).wrapping_add(discriminator.wrapping_mul(P3));
    for word in words {
        let k = word.wrapping_mul(P2).rotate_left(31).wrapping_mul(P1);
        h = (h ^ k).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    h ^= h >> 33;
    h = h.wrapping_mul(P2);
    h ^= h >> 29;
    h = h.wrapping_mul(P3);
    h ^ (h >> 32)
}
