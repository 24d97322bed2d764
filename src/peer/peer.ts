/* Who a peer is, the public names that run everywhere; identity.ts is for Node. */
export { PeerId } from './id.ts'
export {
  decodePrivateKey,
  decodePublicKey,
  generateKey,
  importPrivateKey,
  type KeyType,
  type PrivateKey,
  type PublicKey,
} from './keys.ts'
export {
  AddressBook,
  addressTtlMs,
  type AddOptions,
  type AddressBookOptions,
  type ConsumeOptions,
  type KnownAddr,
} from './book.ts'
export {
  openEnvelope,
  openPeerRecord,
  sealEnvelope,
  sealPeerRecord,
  type Envelope,
  type PeerRecord,
} from './envelope.ts'
