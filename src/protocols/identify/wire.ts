/* identify 1.0 messages (libp2p identify/README.md, r1, and field 8 as deployed), with the limits of go-libp2p 0.51. */
import { fromUtf8 } from '../../bytes.ts'
import { bytes, limited, message, repeated, string, type Decoded, type Init } from '../../protobuf.ts'

export const identifyId = '/ipfs/id/1.0.0'
export const identifyPushId = '/ipfs/id/push/1.0.0'

/** Bytes of one frame; a larger Identify comes in several, to be merged as protobuf merges. */
export const maxFrameBytes = 8 * 1024
export const maxFrames = 10
export const maxProtocols = 1024
const maxListenAddrs = 256
const maxProtocolBytes = 1024

export const Identify = message({
  publicKey: [1, limited(bytes, 4096)],
  listenAddrs: [2, repeated(limited(bytes, 1024), maxListenAddrs)],
  protocols: [3, repeated(limited(string, maxProtocolBytes), maxProtocols)],
  observedAddr: [4, limited(bytes, 1024)],
  protocolVersion: [5, limited(string, 1024)],
  agentVersion: [6, limited(string, 1024)],
  signedPeerRecord: [8, limited(bytes, maxFrameBytes)],
})
export type IdentifyMessage = Decoded<typeof Identify>

/** Up to here everything goes as one frame: what older peers take (go-libp2p legacyIDSize). */
const singleFrameBytes = 2 * 1024
/** The first of several: rust-libp2p reads one frame of up to 4 KiB, and no more. */
const firstFrameBytes = 4 * 1024

/**
 * The frames of a message, at most ten: all but the record in the first if that holds it, protocols that are left in more,
 * the record in the last. `left` is how many protocols found no place.
 */
export function encodeIdentify(init: Init<typeof Identify>): { frames: Uint8Array[]; left: number } {
  const { protocols = [], signedPeerRecord, ...rest } = init
  const shown = protocols.filter((id) => fromUtf8(id).length <= maxProtocolBytes).slice(0, maxProtocols)
  const frames: Uint8Array[] = []
  let at = 0
  for (
    let head: Init<typeof Identify> = rest;
    frames.length < maxFrames - 1 && (at < shown.length || head === rest);
    head = {}
  ) {
    const some: string[] = []
    let size = Identify.encode(head).length
    for (; at < shown.length; at++) {
      const protocol = shown[at] ?? ''
      // A tag and a length of two bytes before it.
      size += fromUtf8(protocol).length + 3
      if (size > (head === rest ? firstFrameBytes : maxFrameBytes)) break
      some.push(protocol)
    }
    frames.push(Identify.encode({ ...head, protocols: some }))
  }
  const left = protocols.length - at
  const [first = new Uint8Array(0)] = frames
  if (frames.length === 1 && first.length + (signedPeerRecord?.length ?? 0) <= singleFrameBytes) {
    return { frames: [Identify.encode({ ...init, protocols: shown })], left }
  }
  if (signedPeerRecord !== undefined) frames.push(Identify.encode({ signedPeerRecord }))
  return { frames, left }
}
