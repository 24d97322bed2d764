/*
 * The numbers that more than one layer must agree on. A limit that only one file knows stands in that file's defaults.
 * Each says its unit and where it comes from.
 */

/** Bytes of one length-prefixed message unless its protocol says less (go-libp2p network.MessageSizeMax). */
export const messageBytes = 4 * 1024 * 1024

/** Bytes of one block: accepted from peers and stores (Bitswap spec: MUST support up to 2 MiB). */
export const blockBytes = 2 * 1024 * 1024

/** Bytes of a multihash digest that we accept (boxo verifcid; identity digests too, IPIP-0512). */
export const digestBytes = 128

/** Bytes of a binary CID that we accept: four varints and a digest (boxo). */
export const cidBytes = 168

/** Bytes of a multistream-select token including the newline (js-libp2p; go allows 64 KiB, nobody needs it). */
export const protocolIdBytes = 1024

/** Chunks up to this many bytes are gathered into one buffer before the cipher; larger ones go uncopied. */
export const gatherBytes = 2048

/** Capabilities of one protocol id, bytes of each, and of the answer that tells those of all ids. */
export const maxCapabilities = 32
export const maxCapabilityBytes = 64
export const maxCapabilitiesBytes = 32 * 1024
