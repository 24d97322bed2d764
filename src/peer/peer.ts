/* Who a peer is, the public names that run everywhere; identity.ts is for Node. */
export { PeerId } from './id.ts'
export { decodePrivateKey, decodePublicKey, generateKey, type PrivateKey, type PublicKey } from './keys.ts'
