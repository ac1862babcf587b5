//! The hash of keys and tags: SipHash-1-3 (Aumasson and Bernstein, INDOCRYPT 2012), a pseudo-random function keyed with 128
//! random bits of the region. An attacker who does not know these bits cannot aim keys at one bucket, nor a tag at the counter
//! of another tag: neither by trying keys, nor by differences between keys that cancel out under every seed.
//!
//! The bucket of an entry and its fingerprint are taken from opposite ends of the hash. If they shared bits, the entries of
//! one bucket would have similar fingerprints.

/// The key of all hashes in a region: 128 random bits.
pub type Seed = [u64; 2];

/// The domain of tags. The key kinds are domains too, the smaller numbers.
pub const TAG: u32 = 4;
/// The domain of the names of locks is this plus the key kind of the name.
pub const LOCK: u32 = 5;

/// Hashes the first `length` bytes of `words` in a domain: the same bytes have unrelated hashes in different domains. The
/// bytes of `words` behind `length` are zero.
///
/// The blocks are those of SipHash except for the highest byte of the last block. SipHash puts the length modulo 256 there.
/// Here this byte is `domain << 3 | length % 8`: the number of blocks and these three bits are enough to tell lengths apart.
#[inline]
pub fn hash(words: &[u64], length: u32, domain: u32, seed: Seed) -> u64 {
    let (blocks, rest) = words.split_at(words.len().min(length as usize / 8));
    let last = if length % 8 == 0 { 0 } else { rest.first().copied().unwrap_or(0) };
    siphash(blocks, last | ((domain << 3 | length % 8) as u64) << 56, seed)
}

/// SipHash-1-3 of whole blocks and a last block: one round for each block, three rounds at the end.
#[inline(always)]
fn siphash(blocks: &[u64], last: u64, seed: Seed) -> u64 {
    let [k0, k1] = seed;
    let mut v = [
        k0 ^ 0x736F_6D65_7073_6575,
        k1 ^ 0x646F_7261_6E64_6F6D,
        k0 ^ 0x6C79_6765_6E65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for &block in blocks {
        absorb(&mut v, block);
    }
    absorb(&mut v, last);
    v[2] ^= 0xFF;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn absorb(v: &mut [u64; 4], block: u64) {
    v[3] ^= block;
    round(v);
    v[0] ^= block;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32).wrapping_add(v[3]);
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}
