/* RPCs that real peers sent: read as what they are, their signatures hold, and what we write of them is read the same. */
import { describe, expect, it } from 'vitest'
import { concat, fromHex, toHex } from '../../../src/bytes.ts'
import { openPeerRecord } from '../../../src/peer/envelope.ts'
import { PeerId } from '../../../src/peer/id.ts'
import { AuthorKeys, checkFields, verifyMessage } from '../../../src/protocols/gossipsub/sign.ts'
import {
  decodeRpc,
  encodeControl,
  encodeMessage,
  idBytes,
  rpcChunks,
  type Rpc,
} from '../../../src/protocols/gossipsub/wire.ts'
import { decodeVarint, varintLength } from '../../../src/varint.ts'
import { specCases } from '../../vectors.ts'

interface Captured {
  from: 'go' | 'js' | 'rust' | 'py'
  what: string
  protocol: string
  hex: string
  rpc: Record<string, unknown>
}
const captured = specCases('gossipsub/captured.json') as Captured[]

const hex = (bytes: Uint8Array | undefined): string | undefined => bytes && toHex(bytes)
const hexes = (ids: readonly string[]): string[] => ids.map((id) => toHex(idBytes(id)))

const some = <T>(list: readonly T[]): readonly T[] | undefined => (list.length === 0 ? undefined : list)

/** As the vectors have it: what is not there is left out. */
function plain(rpc: Rpc): unknown {
  const { partial, testExtension } = rpc
  return JSON.parse(
    JSON.stringify({
      subscriptions: some(rpc.subscriptions),
      publish: some(
        rpc.publish.map(({ from, data, seqno, topic, signature, key }) => {
          return {
            from: hex(from),
            data: hex(data),
            seqno: hex(seqno),
            topic,
            signature: hex(signature),
            key: hex(key),
          }
        }),
      ),
      ihave: some(rpc.ihave.map(({ topic, ids }) => ({ topic, ids: hexes(ids) }))),
      iwant: some(hexes(rpc.iwant)),
      idontwant: some(hexes(rpc.idontwant)),
      graft: some(rpc.graft),
      prune: some(
        rpc.prune.map(({ topic, backoffSeconds, peers }) => {
          return {
            topic,
            backoffSeconds,
            peers: peers.map(({ id, record }) => ({ id: toHex(id), record: hex(record) })),
          }
        }),
      ),
      extensions: rpc.extensions,
      partial: partial && {
        topic: partial.topic,
        groupId: hex(partial.groupId),
        message: hex(partial.message),
        metadata: hex(partial.metadata),
      },
      testExtension: testExtension ? true : undefined,
    }),
  )
}

const rpcOf = ({ hex: text }: Captured): Rpc => decodeRpc(fromHex(text))
const having = (field: string): Captured[] => captured.filter(({ rpc }) => field in rpc)

describe('an RPC of another stack', () => {
  it.each(captured)('is read: $what, of $from', (sent) => {
    const rpc = rpcOf(sent)
    expect(plain(rpc)).toEqual(sent.rpc)
    expect(Object.values(rpc.dropped).every((count) => count === 0)).toBe(true)
  })

  it.each(captured)('is the same to who reads what we write of it: $what, of $from', (sent) => {
    const { subscriptions, publish, ihave, iwant, idontwant, graft, prune, extensions, partial, testExtension } =
      rpcOf(sent)
    const control = encodeControl({ ihave, iwant: [iwant], idontwant: [idontwant], graft, prune, extensions })
    const frame = concat(
      rpcChunks({ subscriptions, publish: publish.map((m) => encodeMessage(m)), control, partial, testExtension }),
    )
    expect(plain(decodeRpc(frame.subarray(varintLength(decodeVarint(frame)))))).toEqual(sent.rpc)
    for (const message of publish) expect(toHex(encodeMessage(message))).toBe(toHex(message.raw))
  })

  it.each(having('publish'))('keeps to its signing policy: $what, of $from', async (sent) => {
    const unsigned = sent.what === 'an unsigned message'
    for (const message of rpcOf(sent).publish) {
      const keys = new AuthorKeys()
      expect(checkFields(message, unsigned ? 'StrictNoSign' : 'StrictSign', keys)).toBeUndefined()
      expect(checkFields(message, unsigned ? 'StrictSign' : 'StrictNoSign', keys)).toBeDefined()
      if (unsigned) continue
      expect(await verifyMessage(message, keys)).toBe(true)
      expect(await verifyMessage({ ...message, data: Uint8Array.of(1) }, keys)).toBe(false)
    }
  })

  it('names peers by records that they signed themselves: a PRUNE of go', async () => {
    const named = having('prune').flatMap((sent) => rpcOf(sent).prune.flatMap(({ peers }) => peers))
    expect(named).toHaveLength(1)
    for (const { id, record } of named) {
      const { peerId, addrs } = await openPeerRecord(record ?? new Uint8Array())
      expect(peerId.equals(PeerId.decode(id))).toBe(true)
      expect(addrs.length).toBeGreaterThan(0)
    }
  })
})
