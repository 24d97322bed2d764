/*
 * Who we are without any proof (libp2p plaintext/2.0.0's Exchange message), so that hundreds of nodes cost no
 * cryptography. For simulated networks alone: nothing is secret and everybody may lie.
 */
import { ProtocolError } from '../../src/errors.ts'
import { decodePublicKey, type PrivateKey } from '../../src/peer/keys.ts'
import { bytes, limited, message, required } from '../../src/protobuf.ts'
import type { SecurityProtocol } from '../../src/security/security.ts'
import { buffered, prefixed } from '../../src/stream.ts'
import { toWire } from '../../src/wire.ts'

const Exchange = message({ id: [1, required(limited(bytes, 64))], publicKey: [2, required(limited(bytes, 4096))] })

export function plaintext({ publicKey }: PrivateKey): SecurityProtocol {
  return {
    id: '/plaintext/2.0.0',
    async secure(_role, stream, { expectedPeer, muxers }) {
      await stream.write(...prefixed(Exchange.encode({ id: publicKey.peerId.bytes, publicKey: publicKey.encoded })))
      const framed = buffered(stream)
      const frame = await framed.readPrefixed(8 * 1024)
      if (frame === null) throw new ProtocolError('truncated', 'the peer left without an Exchange message')
      const remoteKey = decodePublicKey(Exchange.decode(frame).publicKey)
      if (expectedPeer?.equals(remoteKey.peerId) === false) {
        throw new ProtocolError('wrong-peer', `expected ${expectedPeer}, got ${remoteKey.peerId}`)
      }
      return { wire: toWire(framed), remotePeer: remoteKey.peerId, remoteKey, muxer: muxers[0] }
    },
  }
}
