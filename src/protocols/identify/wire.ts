/* identify 1.0 messages (libp2p identify/README.md, r1), with the limits of go-libp2p 0.51. */
import { bytes, limited, message, repeated, string } from '../../protobuf.ts'

export const identifyId = '/ipfs/id/1.0.0'
export const identifyPushId = '/ipfs/id/push/1.0.0'

/** Bytes of one frame; a larger Identify comes in several, to be merged as protobuf merges. */
export const maxFrameBytes = 8 * 1024
export const maxFrames = 10
export const maxProtocols = 1024
export const maxListenAddrs = 256

export const Identify = message({
  publicKey: [1, limited(bytes, 4096)],
  listenAddrs: [2, repeated(limited(bytes, 1024), maxListenAddrs)],
  protocols: [3, repeated(limited(string, 1024), maxProtocols)],
  observedAddr: [4, limited(bytes, 1024)],
  protocolVersion: [5, limited(string, 1024)],
  agentVersion: [6, limited(string, 1024)],
  signedPeerRecord: [8, limited(bytes, 64 * 1024)],
})
