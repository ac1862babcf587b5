//! The hash of keys and tags: it is SipHash-1-3, keys and tags cannot be aimed without knowing the seed, and what happens to a
//! new entry in a full bucket.
//!
//! The families of keys differ in ways that cancel out in many fast hashes, whatever their seed. For the keys of [`siblings`]
//! such a hash is XXH64's round without the outer accumulator: one bit of a word after its multiplications is undone by one
//! bit of the next word.

use std::hash::Hasher;

use cache_machine_core::{Counter, Key, Seed, format};

use crate::harness::{Cache, MIB, OwnedKey, PLAIN, Random, With, World, scaled, seed};

/// SipHash of bytes with `c` rounds for each block and `d` rounds at the end, as its authors describe it.
fn reference(c: usize, d: usize, bytes: &[u8], [k0, k1]: Seed) -> u64 {
    let mut v = [0x736f6d6570736575u64 ^ k0, 0x646f72616e646f6d ^ k1, 0x6c7967656e657261 ^ k0, 0x7465646279746573 ^ k1];
    let round = |v: &mut [u64; 4]| {
        for (a, b, turn, half) in [(0, 1, 13, true), (2, 3, 16, false), (0, 3, 21, false), (2, 1, 17, true)] {
            v[a] = v[a].wrapping_add(v[b]);
            v[b] = v[b].rotate_left(turn) ^ v[a];
            v[a] = if half { v[a].rotate_left(32) } else { v[a] };
        }
    };
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len() / 8 * 8 + 7, 0);
    padded.push(bytes.len() as u8);
    for block in padded.chunks(8).map(|block| u64::from_le_bytes(block.try_into().unwrap())) {
        v[3] ^= block;
        (0..c).for_each(|_| round(&mut v));
        v[0] ^= block;
    }
    v[2] ^= 0xff;
    (0..d).for_each(|_| round(&mut v));
    v.into_iter().fold(0, |a, b| a ^ b)
}

/// The engine's hash of the same bytes. With the higher bits of the length as domain, its last block is SipHash's own.
fn ours(bytes: &[u8], seed: Seed) -> u64 {
    let words = words_of(bytes);
    let length = bytes.len() as u32;
    Key::new(&words, length, length / 8, seed).hash
}

fn words_of(bytes: &[u8]) -> Vec<u64> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(8), 0);
    padded.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn seeds(random: &mut Random) -> Seed {
    [random.next(), random.next()]
}

#[test]
fn the_hash_is_siphash() {
    let mut random = Random::new(seed("the_hash_is_siphash"));
    let counting: Vec<u8> = (0..64).collect();
    let published = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
    // The paper, appendix A.
    assert_eq!(reference(2, 4, &counting[..15], published), 0xa129_ca61_49be_45e5);
    // Of the 64 vectors of SipHash-1-3 in the tests of Rust's `core`: for no bytes, 7, 8, 9, 15 and 63.
    let vectors = [
        (0, 0xabac_0158_050f_c4dc),
        (7, 0xd392_7d98_9bb1_1140),
        (8, 0x3690_9511_8d29_9a8e),
        (9, 0x25a4_8eb3_6c06_3de4),
        (15, 0xd320_d86d_2a51_9956),
        (63, 0x9d19_9062_b7bb_b3a8),
    ];
    for (length, hash) in vectors {
        assert_eq!(reference(1, 3, &counting[..length], published), hash, "{length} bytes");
        assert_eq!(ours(&counting[..length], published), hash, "{length} bytes");
    }
    for round in 0..scaled(2000) {
        let length = if round % 4 == 0 { random.below(4097) } else { random.below(70) } as usize;
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let seed = seeds(&mut random);
        assert_eq!(ours(&bytes, seed), reference(1, 3, &bytes, seed), "{length} bytes");
        // Two other implementations: SipHash-1-3 of Rust's `std`, without a key, and SipHash-2-4 with any key.
        let mut unkeyed = std::hash::DefaultHasher::new();
        unkeyed.write(&bytes);
        assert_eq!(ours(&bytes, [0, 0]), unkeyed.finish());
        #[allow(deprecated)]
        let mut keyed = std::hash::SipHasher::new_with_keys(seed[0], seed[1]);
        keyed.write(&bytes);
        assert_eq!(reference(2, 4, &bytes, seed), keyed.finish());
    }
}

/// All participants of a region hash with all bits of its seed, and regions with other seeds hash differently.
#[test]
fn everybody_has_the_seed_of_the_region() {
    let world = World::new(MIB);
    let seed = [7, 9];
    format(&world.region(), seed);
    let cache = Cache::join(&world);
    assert_eq!([cache.me.seed, Cache::join(&world).me.seed], [seed; 2]);
    let header = words_of(&world.bytes()[..64]);
    assert_eq!(header[3..], [seed[0], seed[1], 0, 0, 0]);
    let key = |seed: Seed| OwnedKey::of(b"key").with(seed).hash;
    assert!(key(seed) != key([seed[0], 0]) && key(seed) != key([0, seed[1]]));
}

/// Keys that differ in length, key kind or padding give SipHash different blocks.
#[test]
fn no_two_keys_are_hashed_alike() {
    let mut random = Random::new(seed("no_two_keys_are_one"));
    let zeros = [0u64; 513];
    let mut seen = std::collections::HashSet::new();
    let seed = seeds(&mut random);
    for length in 0..=4096u32 {
        for kind in 0..4 {
            let key = Key::new(&zeros[..length.div_ceil(8) as usize], length, kind, seed);
            assert!(seen.insert(key.hash), "zeros: {length} bytes of key kind {kind}");
        }
    }
}

/// How often each bit of the hash changed, of `of` times.
struct Flips {
    of: u32,
    bits: [u32; 64],
    /// How often bucket and fingerprint both stayed the same, with 1,024 buckets.
    unseen: u32,
}

fn flips(count: u64, mut pair: impl FnMut() -> (u64, u64)) -> Flips {
    let mut flips = Flips { of: count as u32, bits: [0; 64], unseen: 0 };
    for _ in 0..count {
        let (one, other) = pair();
        let difference = one ^ other;
        for (bit, flipped) in flips.bits.iter_mut().enumerate() {
            *flipped += (difference >> bit) as u32 & 1;
        }
        flips.unseen += (difference & SEEN == 0) as u32;
    }
    flips
}

/// Bucket and fingerprint in a region of 1 MiB.
const SEEN: u64 = 0xFFFF << 48 | 1023;

impl Flips {
    /// Each bit changes with probability one half: within seven standard deviations, which one of 10¹¹ bits would exceed.
    fn check(&self, what: &str) {
        let (half, bound) = (self.of as f64 / 2.0, 7.0 * (self.of as f64).sqrt() / 2.0);
        for (bit, flipped) in self.bits.iter().enumerate() {
            let off = (*flipped as f64 - half).abs();
            assert!(off <= bound, "{what}: bit {bit} of the hash changed {flipped} of {} times", self.of);
        }
        assert!(self.unseen <= 1, "{what}: the same for the index {} of {} times", self.unseen, self.of);
    }
}

#[test]
fn every_bit_of_a_key_changes_every_bit_of_its_hash() {
    let mut random = Random::new(seed("every_bit_of_a_key_changes_every_bit_of_its_hash"));
    let samples = scaled(1000).max(200);
    for length in [1, 4, 8, 9, 15, 20, 36, 48, 96] {
        let hash = |random: &mut Random, change: &dyn Fn(&mut Vec<u8>, &mut u32)| {
            let seed = seeds(random);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            let mut kind = random.below(3) as u32;
            let before = Key::new(&words_of(&bytes), bytes.len() as u32, kind, seed).hash;
            change(&mut bytes, &mut kind);
            (before, Key::new(&words_of(&bytes), bytes.len() as u32, kind, seed).hash)
        };
        for bit in 0..length * 8 {
            flips(samples, || hash(&mut random, &|bytes, _| bytes[bit / 8] ^= 1 << (bit % 8)))
                .check(&format!("bit {bit} of {length} bytes"));
        }
        for more in [1, 2, 7, 8, 16, 256] {
            flips(samples, || hash(&mut random, &|bytes, _| bytes.resize(length + more, 0)))
                .check(&format!("{more} zeros behind {length} bytes"));
        }
        for other in 1..4 {
            flips(samples, || hash(&mut random, &|_, kind| *kind ^= other))
                .check(&format!("the key kind of {length} bytes by {other}"));
        }
    }
    let mut seed_of = |bit: usize| {
        let before = seeds(&mut random);
        let mut after = before;
        after[bit / 64] ^= 1 << (bit % 64);
        let words = [random.next(), random.next()];
        (Key::new(&words, 16, 0, before).hash, Key::new(&words, 16, 0, after).hash)
    };
    for bit in 0..128 {
        flips(samples, || seed_of(bit)).check(&format!("bit {bit} of the seed"));
    }
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;

/// What XXH64 makes of a word before it goes into the state.
fn mixed(word: u64) -> u64 {
    word.wrapping_mul(P2).rotate_left(31).wrapping_mul(P1)
}

/// The word that `mixed` turns into this.
fn unmixed(mixed: u64) -> u64 {
    mixed.wrapping_mul(inverse(P1)).rotate_right(31).wrapping_mul(inverse(P2))
}

/// The inverse of an odd number modulo 2⁶⁴. Each step doubles the number of correct bits.
fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |x, _| x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x))))
}

#[test]
fn differences_of_neighbours_do_not_cancel() {
    let mut random = Random::new(seed("differences_of_neighbours_do_not_cancel"));
    let samples = scaled(64).max(64);
    type Way = (&'static str, fn(u64) -> u64, fn(u64) -> u64);
    let ways: [Way; 2] = [("as they are", |word| word, |word| word), ("after XXH64's multiplications", mixed, unmixed)];
    for (name, there, back) in ways {
        for bits in 0..64 * 64 {
            let (low, high) = (bits % 64, bits / 64);
            flips(samples, || {
                let seed = seeds(&mut random);
                let words: [u64; 4] = std::array::from_fn(|_| random.next());
                let at = random.below(3) as usize;
                let mut other = words;
                other[at] = back(there(other[at]) ^ 1 << low);
                other[at + 1] = back(there(other[at + 1]) ^ 1 << high);
                (Key::new(&words, 32, 1, seed).hash, Key::new(&other, 32, 1, seed).hash)
            })
            .check(&format!("bits {low} and {high} of two words {name}"));
        }
    }
}

/// All keys made of these words by changing pairs of neighbours in the way that XXH64's round undoes, or not: 2ⁿ⁻¹ keys of `n`
/// words.
fn siblings(words: &[u64]) -> Vec<Vec<u8>> {
    let all = (0..1usize << (words.len() - 1)).map(|changed| {
        let mut mixed: Vec<u64> = words.iter().map(|word| mixed(*word)).collect();
        for i in (0..words.len() - 1).filter(|i| changed >> i & 1 == 1) {
            mixed[i] ^= 1 << 36;
            mixed[i + 1] ^= 1 << 63;
        }
        bytes_of(&mixed.into_iter().map(unmixed).collect::<Vec<_>>())
    });
    all.collect()
}

/// The bits that are zero in ASCII.
const TOP_BITS: u64 = 0x8080_8080_8080_8080;

/// Siblings of pairs that do not overlap, found by trying so that all keys are ASCII: 2ⁿ keys of `n` pairs.
fn ascii_siblings(random: &mut Random, pairs: usize) -> Vec<String> {
    let mut twins = |bit: u32| loop {
        let word = random.next() & !TOP_BITS;
        let twin = unmixed(mixed(word) ^ 1 << bit);
        if twin & TOP_BITS == 0 {
            return [word, twin];
        }
    };
    let pairs: Vec<[[u64; 2]; 2]> = (0..pairs).map(|_| [twins(36), twins(63)]).collect();
    let key = |changed: usize| {
        let words = pairs.iter().enumerate().flat_map(|(i, pair)| pair.map(|word| word[changed >> i & 1]));
        String::from_utf8(bytes_of(&words.collect::<Vec<_>>())).unwrap()
    };
    (0..1 << pairs.len()).map(key).collect()
}

/// Families of 1,024 keys that a hash which only looks random puts into few buckets.
fn families(random: &mut Random) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let numbers = |from: fn(u64) -> Vec<u8>| (0..1024).map(from).collect::<Vec<_>>();
    let mut all = vec![
        ("decimal numbers", numbers(|i| format!("user:{i}").into_bytes())),
        ("binary numbers", numbers(|i| i.to_le_bytes().to_vec())),
        ("binary numbers, high", numbers(|i| (i << 54).to_le_bytes().to_vec())),
        ("binary numbers in the second word", numbers(|i| bytes_of(&[7, i]))),
        ("the same number twice", numbers(|i| bytes_of(&[i, i]))),
        ("numbers in the middle of a long key", numbers(|i| format!("{:a>40}{i:04}{:b>40}", "", "").into_bytes())),
        ("lengths", numbers(|i| vec![0; i as usize])),
        ("two bits", (0..1024).map(|i| bytes_of(&[1 << (i % 32), 1 << (i / 32)])).collect()),
    ];
    all.push(("pairs of words that cancelled", siblings(&std::array::from_fn::<_, 11, _>(|_| random.next()))));
    let ids = (0..32).flat_map(|_| siblings(&std::array::from_fn::<_, 6, _>(|_| random.next())));
    all.push(("32 of each of 32 ids of 48 bytes", ids.collect()));
    let ascii = ascii_siblings(random, 10);
    all.push(("the same in ASCII", ascii.into_iter().map(String::into_bytes).collect()));
    all
}

#[test]
fn families_of_keys_spread_like_random_ones() {
    let mut random = Random::new(seed("families_of_keys_spread_like_random_ones"));
    for (name, keys) in families(&mut random) {
        let mut unseen = 0;
        for _ in 0..scaled(50).max(20) {
            let seed = seeds(&mut random);
            let hashes: Vec<u64> = keys.iter().map(|key| OwnedKey::of(key).with(seed).hash).collect();
            // By the bits of the bucket, by those of the fingerprint, and by both.
            let parts: [fn(u64) -> u64; 4] =
                [|hash| hash & 1023, |hash| hash >> 54, |hash| hash >> 48 & 1023, |hash| hash & 31 | hash >> 59 << 5];
            for (part, of) in parts.into_iter().enumerate() {
                let mut counts = [0u32; 1024];
                hashes.iter().for_each(|hash| counts[of(*hash) as usize] += 1);
                // One key is expected in each bin, so this is chi-square with a mean of 1,023 and a deviation of 45.
                let squares: f64 = counts.iter().map(|count| (*count as f64 - 1.0).powi(2)).sum();
                assert!(
                    (700.0..1350.0).contains(&squares),
                    "{name}: {squares} for part {part} with the seed {seed:x?}"
                );
            }
            let mut seen: Vec<u64> = hashes.iter().map(|hash| hash & SEEN).collect();
            seen.sort_unstable();
            seen.dedup();
            unseen += keys.len() - seen.len();
        }
        // One of 128 rounds has such a pair.
        assert!(
            unseen <= 5 + scaled(1) as usize,
            "{name}: {unseen} keys have the bucket and the fingerprint of another key"
        );
    }
}

/// A rate limiter's counter survives while an attacker sets keys that were chosen against the hash.
#[test]
fn a_counter_survives_the_keys_that_are_aimed_at_it() {
    let mut random = Random::new(seed("a_counter_survives_the_keys_that_are_aimed_at_it"));
    for (name, keys) in families(&mut random) {
        let mut cache = Cache::join(&World::seeded(4 * MIB, random.next()));
        let (victim, aimed) = keys.split_first().unwrap();
        for (i, neighbour) in aimed.iter().enumerate() {
            let counted = cache.increment(victim, 1.0, 0.0, &PLAIN);
            assert_eq!(counted.ok(), Some(i as f64 + 1.0), "{name}: forgotten after {i} keys");
            cache.increment(neighbour, 1.0, 0.0, &PLAIN).unwrap();
        }
        assert_eq!(cache.count(Counter::Evictions), 0, "{name}");
    }
}

/// An attacker cannot choose tags so that an invalidation hits more entries than by chance.
#[test]
fn tags_cannot_be_aimed_at_a_counter() {
    let mut random = Random::new(seed("tags_cannot_be_aimed_either"));
    let names = ascii_siblings(&mut random, 10);
    let mut cache = Cache::join(&World::seeded(4 * MIB, random.next()));
    let keys: Vec<Vec<u8>> = (0..names.len()).map(|i| format!("key {i}").into_bytes()).collect();
    for (key, name) in keys.iter().zip(&names) {
        cache.store(key, b"value", &With { tags: &[name], ..PLAIN }).unwrap();
    }
    assert!(keys.iter().all(|key| cache.peek(key).is_some()));
    names[..32].iter().for_each(|name| cache.invalidate(&[name]));
    let lost = keys.iter().filter(|key| cache.peek(key).is_none()).count();
    // Beside the 32 themselves one of 2,048 for each of 32 × 992: a mean of 16, with a deviation of four.
    assert!((32..=76).contains(&lost), "{lost} of {} entries are gone", keys.len());
}

/// As the guide says: in a bucket full of hot entries a new entry replaces one of them, and the next new entry replaces that
/// one, so that the others stay.
#[test]
fn a_bucket_of_hot_entries_gives_new_ones_one_way() {
    let mut cache = Cache::join(&World::new(MIB));
    let (buckets, seed) = (cache.me.region.geometry.buckets as u64, cache.me.seed);
    let in_one = (0..).map(|i| format!("key {i}").into_bytes());
    let in_one = in_one.filter(|key| OwnedKey::of(key).with(seed).hash & (buckets - 1) == 5);
    let keys: Vec<Vec<u8>> = in_one.take(30).collect();
    let (hot, new_entries) = keys.split_at(15);
    for key in hot {
        cache.set(key, b"value").unwrap();
        (0..3).for_each(|_| assert!(cache.get(key).is_some()));
    }
    assert_eq!(cache.count(Counter::Evictions), 0);
    for (i, key) in new_entries.iter().enumerate() {
        cache.set(key, b"value").unwrap();
        let there = |cache: &mut Cache, keys: &[Vec<u8>]| keys.iter().filter(|key| cache.peek(key).is_some()).count();
        assert_eq!(there(&mut cache, hot), 14);
        assert_eq!(there(&mut cache, &new_entries[..i]), 0);
        assert!(cache.peek(key).is_some());
        // From the second half on as hot as the others: there still is only one way for new entries.
        (0..if i < 8 { 0 } else { 3 }).for_each(|_| assert!(cache.get(key).is_some()));
    }
    assert_eq!(cache.count(Counter::Evictions), 15);
    cache.check();
}
