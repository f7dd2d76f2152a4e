// BLAKE3-256, written for reading: enough to check a page against its ETag.

const IV = Uint32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);
const PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const BLOCK = 64;
const CHUNK = 1024;
const CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8;

const rotateRight = (word, bits) => (word >>> bits) | (word << (32 - bits));

function mix(s, a, b, c, d, x, y) {
  s[a] += s[b] + x;
  s[d] = rotateRight(s[d] ^ s[a], 16);
  s[c] += s[d];
  s[b] = rotateRight(s[b] ^ s[c], 12);
  s[a] += s[b] + y;
  s[d] = rotateRight(s[d] ^ s[a], 8);
  s[c] += s[d];
  s[b] = rotateRight(s[b] ^ s[c], 7);
}

// One block into a chaining value of eight words.
function compress(cv, block, counter, length, flags) {
  const s = new Uint32Array(16);
  s.set(cv);
  s.set(IV.subarray(0, 4), 8);
  s[12] = counter;
  s[13] = counter / 2 ** 32;
  s[14] = length;
  s[15] = flags;
  let m = block;
  for (let round = 0; round < 7; round++) {
    mix(s, 0, 4, 8, 12, m[0], m[1]);
    mix(s, 1, 5, 9, 13, m[2], m[3]);
    mix(s, 2, 6, 10, 14, m[4], m[5]);
    mix(s, 3, 7, 11, 15, m[6], m[7]);
    mix(s, 0, 5, 10, 15, m[8], m[9]);
    mix(s, 1, 6, 11, 12, m[10], m[11]);
    mix(s, 2, 7, 8, 13, m[12], m[13]);
    mix(s, 3, 4, 9, 14, m[14], m[15]);
    m = Uint32Array.from(PERMUTATION, (from) => m[from]);
  }
  return Uint32Array.from({ length: 8 }, (_, i) => s[i] ^ s[i + 8]);
}

function blockWords(bytes) {
  const words = new Uint32Array(16);
  bytes.forEach((byte, i) => { words[i >> 2] |= byte << (8 * (i & 3)); });
  return words;
}

function chunk(bytes, counter, root) {
  let cv = IV;
  for (let at = 0; at === 0 || at < bytes.length; at += BLOCK) {
    const block = bytes.subarray(at, at + BLOCK);
    const last = at + BLOCK >= bytes.length;
    const flags = (at === 0 ? CHUNK_START : 0) | (last ? CHUNK_END | root : 0);
    cv = compress(cv, blockWords(block), counter, block.length, flags);
  }
  return cv;
}

// The left subtree holds the largest power of two of chunks that leaves something for the right.
function subtree(bytes, counter, root) {
  if (bytes.length <= CHUNK) return chunk(bytes, counter, root);
  let left = CHUNK;
  while (left * 2 < bytes.length) left *= 2;
  const words = new Uint32Array(16);
  words.set(subtree(bytes.subarray(0, left), counter, 0));
  words.set(subtree(bytes.subarray(left), counter + left / CHUNK, 0), 8);
  return compress(IV, words, 0, BLOCK, PARENT | root);
}

/** The lower-case hex that `b3sum` prints for these bytes. */
export function blake3(bytes) {
  const out = new DataView(new ArrayBuffer(32));
  subtree(bytes, 0, ROOT).forEach((word, i) => out.setUint32(4 * i, word, true));
  return Array.from(new Uint8Array(out.buffer), (b) => b.toString(16).padStart(2, "0")).join("");
}
