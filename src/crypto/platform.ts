/* The backend that this platform gets: node:crypto on Node, portable code everywhere else. */
export { platformCrypto } from '#crypto'
export type { Aead, Crypto, Ed25519PrivateKey, Ed25519PublicKey, Hasher, X25519KeyPair } from './crypto.ts'
