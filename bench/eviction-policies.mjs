/**
 * Reference eviction policies for hit ratios: the textbook algorithms, with numbers as keys and entries of equal size.
 * `ask(key)` returns whether the key was stored, and stores it if it was not.
 */

/** LRU: evicts the least recently used entry; a Set iterates in order of insertion. */
export class Lru {
  #entries = new Set();

  constructor(capacity) {
    this.capacity = capacity;
  }

  ask(key) {
    const hit = this.#entries.delete(key);
    this.#entries.add(key);
    if (this.#entries.size > this.capacity) this.#entries.delete(this.#entries.values().next().value);
    return hit;
  }
}

/** CLOCK: a hit sets the bit of its entry; the hand moves on, clears bits, and evicts the first entry whose bit is clear. */
export class Clock {
  #places = new Map();
  #keys = [];
  #bits;
  #hand = 0;

  constructor(capacity) {
    this.capacity = capacity;
    this.#bits = new Uint8Array(capacity);
  }

  ask(key) {
    const place = this.#places.get(key);
    if (place !== undefined) {
      this.#bits[place] = 1;
      return true;
    }
    if (this.#keys.length < this.capacity) {
      this.#places.set(key, this.#keys.length);
      this.#keys.push(key);
      return false;
    }
    while (this.#bits[this.#hand] === 1) {
      this.#bits[this.#hand] = 0;
      this.#hand = (this.#hand + 1) % this.capacity;
    }
    this.#places.delete(this.#keys[this.#hand]);
    this.#keys[this.#hand] = key;
    this.#places.set(key, this.#hand);
    this.#hand = (this.#hand + 1) % this.capacity;
    return false;
  }
}

/** A first-in, first-out queue of keys. */
class Queue {
  #keys = [];
  #first = 0;

  get length() {
    return this.#keys.length - this.#first;
  }

  push(key) {
    this.#keys.push(key);
  }

  shift() {
    const key = this.#keys[this.#first++];
    if (this.#first > 1024 && this.#first * 2 > this.#keys.length) {
      this.#keys = this.#keys.slice(this.#first);
      this.#first = 0;
    }
    return key;
  }
}

/**
 * S3-FIFO (Yang and others, SOSP 2023). The small queue holds new keys, a tenth of the capacity. The main queue holds keys
 * that were read at least twice in the small queue, or that came back while they had a ghost. There are as many ghosts as
 * keys in the main queue.
 */
export class S3Fifo {
  #small = new Queue();
  #main = new Queue();
  #heat = new Map();
  #ghosts = new Set();

  constructor(capacity) {
    this.smallCapacity = Math.max(1, Math.floor(capacity / 10));
    this.mainCapacity = capacity - this.smallCapacity;
  }

  ask(key) {
    const heat = this.#heat.get(key);
    if (heat !== undefined) {
      if (heat < 3) this.#heat.set(key, heat + 1);
      return true;
    }
    while (this.#small.length + this.#main.length >= this.smallCapacity + this.mainCapacity) this.#evict();
    this.#heat.set(key, 0);
    if (this.#ghosts.delete(key)) this.#main.push(key);
    else this.#small.push(key);
    return false;
  }

  #evict() {
    if (this.#small.length >= this.smallCapacity || this.#main.length === 0) this.#evictSmall();
    else this.#evictMain();
  }

  #evictSmall() {
    while (this.#small.length > 0) {
      const key = this.#small.shift();
      if (this.#heat.get(key) > 1) {
        this.#heat.set(key, 0);
        this.#main.push(key);
        if (this.#main.length > this.mainCapacity) return this.#evictMain();
      } else {
        this.#heat.delete(key);
        this.#ghosts.add(key);
        if (this.#ghosts.size > this.mainCapacity) this.#ghosts.delete(this.#ghosts.values().next().value);
        return;
      }
    }
  }

  #evictMain() {
    for (;;) {
      const key = this.#main.shift();
      const heat = this.#heat.get(key);
      if (heat === 0) {
        this.#heat.delete(key);
        return;
      }
      this.#heat.set(key, heat - 1);
      this.#main.push(key);
    }
  }
}
