import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8 } from '../../../src/bytes.ts'
import { errorCode, ProtocolError } from '../../../src/errors.ts'
import {
  decodeRpc,
  defaultBudget,
  encodeControl,
  encodeMessage,
  fieldBytes,
  idBytes,
  idKey,
  meshsubIds,
  portableKey,
  rpcBytes,
  rpcChunks,
  type Control,
  type OutgoingRpc,
  type Rpc,
  type RpcBudget,
} from '../../../src/protocols/gossipsub/wire.ts'
import { decodeVarint, encodeVarint, varintLength } from '../../../src/varint.ts'
import { specCases } from '../../vectors.ts'

const go = specCases('gossipsub/rpc.json') as { name: string; hex: string; merged?: string }[]
const goFrame = (name: string): Uint8Array => fromHex(go.find((c) => c.name === name)?.hex ?? '')

/** A length-delimited field. */
function field(number: number, ...content: (Uint8Array | string)[]): Uint8Array {
  const bytes = concat(content.map((c) => (typeof c === 'string' ? fromUtf8(c) : c)))
  return concat([encodeVarint(number * 8 + 2), encodeVarint(bytes.length), bytes])
}
const number = (field: number, value: number): Uint8Array => concat([encodeVarint(field * 8), encodeVarint(value)])
const bytes = (...values: number[]): Uint8Array => Uint8Array.of(...values)
/** A field of the message that the path of field numbers leads to. */
const wrong = (path: number[], tag: number): Uint8Array =>
  path.reduceRight((inside: Uint8Array, n) => field(n, inside), concat([encodeVarint(tag), Uint8Array.of(0)]))
const repeat = (count: number, bytes: Uint8Array): Uint8Array => concat(Array.from({ length: count }, () => bytes))

function unframed(chunks: readonly Uint8Array[]): Uint8Array {
  const all = concat(chunks)
  const size = decodeVarint(all)
  const frame = all.subarray(varintLength(size))
  expect(frame.length).toBe(size)
  return frame
}

const encode = (rpc: OutgoingRpc): Uint8Array => unframed(rpcChunks(rpc))
const tight = (some: Partial<RpcBudget>): RpcBudget => ({ ...defaultBudget, ...some })
const codeOf = (frame: Uint8Array, budget?: RpcBudget): unknown => {
  try {
    decodeRpc(frame, budget)
    return undefined
  } catch (error) {
    return error instanceof ProtocolError ? errorCode(error) : error
  }
}
const ids = ['\u0000\u00ff\u0080\n', 'second']
const anything = { subscriptions: [], publish: [], ihave: [], iwant: [], graft: [], prune: [], idontwant: [] }

describe('what go writes', () => {
  it('a hello', () => {
    const rpc = decodeRpc(goFrame('hello'))
    expect(rpc).toMatchObject({ ...anything, subscriptions: [{}, {}, {}], extensionsCount: 1 })
    expect(rpc.subscriptions).toEqual([
      { subscribe: true, topic: 'a' },
      { subscribe: false, topic: 'b' },
      { subscribe: true, topic: 'θ', requestsPartial: true, supportsSendingPartial: true },
    ])
    expect(rpc.extensions).toEqual({ partialMessages: true, testExtension: true })
  })

  it('messages: what is absent is undefined, what is empty is empty, raw is the message as it came', () => {
    const frame = goFrame('publish')
    const [first, second] = decodeRpc(frame).publish
    expect(first).toEqual({ data: Uint8Array.of(1, 2, 3), topic: 'a', raw: fromHex('1203010203220161') })
    expect(second).toMatchObject({ topic: 'b', data: new Uint8Array(0), from: Uint8Array.of(9), key: Uint8Array.of(8) })
    expect(second?.signature).toEqual(Uint8Array.of(7))
    expect(second?.seqno).toEqual(fromHex('0000000000000001'))
    expect(first?.raw.buffer).toBe(frame.buffer)
  })

  it('control', () => {
    const rpc = decodeRpc(goFrame('control'))
    expect(rpc.ihave).toEqual([
      { topic: 'a', ids },
      { topic: 'b', ids: [] },
    ])
    expect(rpc.iwant).toEqual([...ids, 'second'])
    expect(rpc.idontwant).toEqual(ids)
    expect(rpc.graft).toEqual(['a', 'b'])
    expect(rpc.prune).toEqual([
      {
        topic: 'a',
        peers: [{ id: Uint8Array.of(1, 2), record: Uint8Array.of(3) }, { id: Uint8Array.of(4) }],
        backoffSeconds: 60,
      },
      { topic: 'b', peers: [] },
    ])
    const [huge] = decodeRpc(goFrame('back-off of 2^64-1 s')).prune
    expect(huge).toEqual({ topic: 'c', peers: [], backoffSeconds: Number.MAX_SAFE_INTEGER })
  })

  it('parts of messages', () => {
    const rpc = decodeRpc(goFrame('partial'))
    expect(rpc.partial).toEqual({
      topic: 'a',
      groupId: Uint8Array.of(1),
      message: Uint8Array.of(2, 2),
      metadata: Uint8Array.of(3),
    })
    expect(rpc.testExtension).toBe(true)
  })

  it('what is sent in two pieces is what it makes of them, but extensions are counted', () => {
    const twice = go.find((c) => c.name === 'twice')
    const rpc = decodeRpc(fromHex(twice?.hex ?? ''))
    const merged = decodeRpc(fromHex(twice?.merged ?? ''))
    expect(rpc.extensions).toEqual({ partialMessages: false, testExtension: true })
    expect(rpc.partial?.groupId).toEqual(Uint8Array.of(5))
    expect(rpc.extensionsCount).toBe(2)
    expect({ ...rpc, extensionsCount: 1 }).toEqual(merged)
  })

  it('is what we write', () => {
    const yes = { partialMessages: true, testExtension: true }
    expect(
      encode({
        subscriptions: [
          { subscribe: true, topic: 'a' },
          { subscribe: false, topic: 'b' },
          { subscribe: true, topic: 'θ', requestsPartial: true, supportsSendingPartial: true },
        ],
        control: encodeControl({ extensions: yes }),
      }),
    ).toEqual(goFrame('hello'))
    const control = encodeControl({
      ihave: [
        { topic: 'a', ids },
        { topic: 'b', ids: [] },
      ],
      iwant: [ids, ids.slice(1)],
      graft: ['a', 'b'],
      prune: [
        {
          topic: 'a',
          peers: [{ id: Uint8Array.of(1, 2), record: Uint8Array.of(3) }, { id: Uint8Array.of(4) }],
          backoffSeconds: 60,
        },
        { topic: 'b', peers: [] },
      ],
      idontwant: [ids],
    })
    expect(encode({ control })).toEqual(goFrame('control'))
    expect(
      encode({
        partial: { topic: 'a', groupId: bytes(1), message: bytes(2, 2), metadata: bytes(3) },
        testExtension: true,
      }),
    ).toEqual(goFrame('partial'))
    expect(
      encode({
        publish: [
          encodeMessage({ data: bytes(1, 2, 3), topic: 'a' }),
          encodeMessage({
            from: bytes(9),
            data: bytes(),
            seqno: fromHex('0000000000000001'),
            topic: 'b',
            signature: bytes(7),
            key: bytes(8),
          }),
        ],
      }),
    ).toEqual(goFrame('publish'))
  })
})

describe('ids', () => {
  it('are one char per byte, the same on every platform, and back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 9000 }), fc.nat(100), (bytes, start) => {
        expect(portableKey(bytes)).toBe(idKey(bytes))
        expect(portableKey(bytes, start, start + 20)).toBe(idKey(bytes.subarray(start, start + 20)))
        expect(idBytes(idKey(bytes))).toEqual(bytes)
      }),
    )
  })

  it('of protocols are offered newest first', () => {
    expect(meshsubIds).toEqual(['/meshsub/1.3.0', '/meshsub/1.2.0', '/meshsub/1.1.0', '/meshsub/1.0.0'])
  })
})

const bytesOf = (max: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength: max })
const id = bytesOf(64).map((bytes) => idKey(bytes))
const list = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(of, { maxLength: 4 })
const maybe = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(of, { nil: undefined })
const topic = fc.string({ unit: 'binary', maxLength: 80 }).map((text) => text.toWellFormed())
const message = fc.record({
  from: maybe(bytesOf(50)),
  data: maybe(
    fc.oneof(
      bytesOf(50),
      fc.integer({ min: 2000, max: 5000 }).map((n) => new Uint8Array(n).fill(n)),
    ),
  ),
  seqno: maybe(bytesOf(9)),
  topic,
  signature: maybe(bytesOf(70)),
  key: maybe(bytesOf(40)),
})
const control = fc.record({
  ihave: list(fc.record({ topic, ids: list(id) })),
  iwant: list(list(id)),
  graft: list(topic),
  prune: list(
    fc.record({
      topic,
      peers: list(fc.record({ id: bytesOf(40), record: maybe(bytesOf(3000)) })),
      backoffSeconds: maybe(fc.maxSafeNat()),
    }),
  ),
  idontwant: list(list(id)),
  extensions: maybe(fc.record({ partialMessages: maybe(fc.boolean()), testExtension: maybe(fc.boolean()) })),
})
const partial = fc.record({
  topic: maybe(topic),
  groupId: maybe(bytesOf(20)),
  message: maybe(bytesOf(3000)),
  metadata: maybe(bytesOf(20)),
})
const subscription = fc.record({
  subscribe: fc.boolean(),
  topic,
  requestsPartial: maybe(fc.boolean()),
  supportsSendingPartial: maybe(fc.boolean()),
})
const anyRpc = fc.record({
  subscriptions: list(subscription),
  publish: list(message),
  control: maybe(control),
  partial: maybe(partial),
  testExtension: fc.boolean(),
})

const outgoing = (rpc: {
  subscriptions: OutgoingRpc['subscriptions']
  publish: Parameters<typeof encodeMessage>[0][]
  control: Control | undefined
  partial: OutgoingRpc['partial']
  testExtension: boolean
}): OutgoingRpc => ({
  ...rpc,
  publish: rpc.publish.map((m) => encodeMessage(m)),
  control: rpc.control && encodeControl(rpc.control),
})

describe('an RPC of ours', () => {
  it('is read as it was written', () => {
    fc.assert(
      fc.property(anyRpc, (given) => {
        const rpc = outgoing(given)
        const frame = encode(rpc)
        const read = decodeRpc(frame)
        expect(rpcBytes(rpc)).toBe(frame.length)
        expect(read.subscriptions).toEqual(given.subscriptions)
        expect(read.publish).toEqual(given.publish.map((m, i) => ({ ...m, raw: rpc.publish?.[i] })))
        expect(read.ihave).toEqual(given.control?.ihave ?? [])
        expect(read.iwant).toEqual(given.control?.iwant.flat() ?? [])
        expect(read.graft).toEqual(given.control?.graft ?? [])
        expect(read.prune).toEqual(given.control?.prune ?? [])
        expect(read.idontwant).toEqual(given.control?.idontwant.flat() ?? [])
        expect(read.extensions).toEqual(given.control?.extensions)
        expect(read.extensionsCount).toBe(given.control?.extensions === undefined ? 0 : 1)
        expect(read.partial).toEqual(given.partial)
        expect(read.testExtension).toBe(given.testExtension)
        expect(Object.values(read.dropped).every((count) => count === 0)).toBe(true)
      }),
    )
  })

  it('carries large messages without copying them, and small ones in one piece', () => {
    const large = encodeMessage({ topic: 't', data: new Uint8Array(300) })
    const small = encodeMessage({ topic: 't', data: new Uint8Array(10) })
    const chunks = rpcChunks({ publish: [small, large, small, small, large] })
    expect(chunks).toHaveLength(4)
    expect(chunks[1]).toBe(large)
    expect(chunks[3]).toBe(large)
    expect(rpcChunks({ publish: [small, small], control: new Uint8Array(0) })).toHaveLength(1)
    expect(rpcChunks({})).toEqual([Uint8Array.of(0)])
  })

  it('says how many bytes a field takes', () => {
    for (const size of [0, 127, 128, 16_383, 16_384])
      expect(fieldBytes(size)).toBe(field(2, new Uint8Array(size)).length)
  })
})

describe('the budget', () => {
  const idField = field(1, 'id')
  const cases: [name: keyof RpcBudget, frame: Uint8Array, kept: (rpc: Rpc) => number, dropped: keyof Rpc['dropped']][] =
    [
      [
        'subscriptions',
        repeat(5, field(1, number(1, 1), field(2, 't'))),
        (r) => r.subscriptions.length,
        'subscriptions',
      ],
      ['publish', repeat(5, field(2, field(4, 't'))), (r) => r.publish.length, 'publish'],
      ['ihaveMessages', field(3, repeat(5, field(1, field(1, 't')))), (r) => r.ihave.length, 'ihaveMessages'],
      ['ihaveIds', field(3, field(1, repeat(5, field(2, 'id')))), (r) => r.ihave.flatMap((i) => i.ids).length, 'ids'],
      ['iwantIds', field(3, field(2, repeat(5, idField))), (r) => r.iwant.length, 'ids'],
      ['idontwantIds', field(3, field(5, repeat(5, idField))), (r) => r.idontwant.length, 'ids'],
      ['idontwantMessages', field(3, repeat(5, field(5, idField))), (r) => r.idontwant.length, 'idontwantMessages'],
      ['grafts', field(3, repeat(5, field(3, field(1, 't')))), (r) => r.graft.length, 'grafts'],
      ['prunes', field(3, repeat(5, field(4, field(1, 't')))), (r) => r.prune.length, 'prunes'],
      [
        'prunePeers',
        field(3, field(4, repeat(5, field(2, field(1, 'p'))))),
        (r) => r.prune[0]?.peers.length ?? 0,
        'prunePeers',
      ],
    ]

  it.each(cases)('of %s is kept, the rest counted', (name, frame, kept, dropped) => {
    for (const max of [0, 3, 5, 9]) {
      const rpc = decodeRpc(frame, tight({ [name]: max }))
      expect(kept(rpc)).toBe(Math.min(5, max))
      expect(rpc.dropped[dropped]).toBe(Math.max(0, 5 - max))
      expect(Object.values(rpc.dropped).reduce((a, b) => a + b)).toBe(Math.max(0, 5 - max))
    }
  })

  it.each(cases)('of %s is one for a whole RPC, however it is cut into pieces', (name, frame, kept) => {
    expect(kept(decodeRpc(concat([frame, frame]), tight({ [name]: 3 })))).toBeLessThanOrEqual(3)
  })

  it('of IHAVE ids is shared by all topics', () => {
    const frame = field(3, repeat(4, field(1, field(1, 't'), repeat(2, field(2, 'id')))))
    const rpc = decodeRpc(frame, tight({ ihaveIds: 5 }))
    expect(rpc.ihave.map((i) => i.ids.length)).toEqual([2, 2, 1, 0])
    expect(rpc.dropped.ids).toBe(3)
  })

  it('of control bytes passes over whole entries, not the extensions', () => {
    const entry = field(2, field(1, new Uint8Array(98)))
    const frame = field(3, repeat(3, entry), field(6, number(10, 1)), field(3, field(1, 't')))
    const rpc = decodeRpc(frame, tight({ controlBytes: 203 }))
    expect(rpc.iwant).toHaveLength(2)
    expect(rpc.graft).toEqual(['t'])
    expect(rpc.dropped.controlBytes).toBe(100)
    expect(rpc.extensions?.partialMessages).toBe(true)
    expect(decodeRpc(frame, tight({ controlBytes: 202 })).graft).toEqual([])
  })

  it('of id bytes passes over the long ones, which take no place', () => {
    const frame = field(3, field(2, field(1, new Uint8Array(129)), field(1, new Uint8Array(128)), field(1, 'x')))
    const rpc = decodeRpc(frame, tight({ iwantIds: 2 }))
    expect(rpc.iwant.map((i) => i.length)).toEqual([128, 1])
    expect(rpc.dropped.ids).toBe(1)
  })

  it('of topic bytes is for every topic', () => {
    const long = 'x'.repeat(11)
    const budget = tight({ topicBytes: 10 })
    const frames = [
      field(1, field(2, long)),
      field(3, field(1, field(1, long))),
      field(3, field(3, field(1, long))),
      field(3, field(4, field(1, long))),
      field(10, field(1, long)),
    ]
    for (const frame of frames) {
      expect(codeOf(frame, budget)).toBe('oversized')
      expect(codeOf(frame)).toBeUndefined()
    }
    const { publish, dropped } = decodeRpc(field(2, field(4, long)), budget)
    expect([publish.length, dropped.publish]).toEqual([0, 1])
  })

  it('makes nothing of a megabyte of the smallest entries but a count', () => {
    const frame = field(3, field(2, repeat(300_000, field(1))))
    const rpc = decodeRpc(frame, tight({ controlBytes: frame.length }))
    expect(rpc.iwant).toHaveLength(5000)
    expect(rpc.dropped.ids).toBe(295_000)
  })
})

/** A message is left out of its RPC, anything else is the end of it. */
const refusal = (path: number[], tag: number): unknown => {
  const frame = wrong(path, tag)
  if (path[0] !== 2) return codeOf(frame)
  return decodeRpc(frame).dropped.publish === 1 ? 'bad-protobuf' : undefined
}

describe('a broken RPC is a ProtocolError:', () => {
  const known: [path: number[], fields: [number: number, wire: number][]][] = [
    [
      [],
      [
        [1, 2],
        [2, 2],
        [3, 2],
        [10, 2],
        [6_492_434, 2],
      ],
    ],
    [
      [1],
      [
        [1, 0],
        [2, 2],
        [3, 0],
        [4, 0],
      ],
    ],
    [
      [2],
      [
        [1, 2],
        [2, 2],
        [3, 2],
        [4, 2],
        [5, 2],
        [6, 2],
      ],
    ],
    [
      [3],
      [
        [1, 2],
        [2, 2],
        [3, 2],
        [4, 2],
        [5, 2],
        [6, 2],
      ],
    ],
    [
      [3, 1],
      [
        [1, 2],
        [2, 2],
      ],
    ],
    [[3, 2], [[1, 2]]],
    [[3, 3], [[1, 2]]],
    [
      [3, 4],
      [
        [1, 2],
        [2, 2],
        [3, 0],
      ],
    ],
    [
      [3, 4, 2],
      [
        [1, 2],
        [2, 2],
      ],
    ],
    [[3, 5], [[1, 2]]],
    [
      [3, 6],
      [
        [10, 0],
        [6_492_434, 0],
      ],
    ],
    [
      [10],
      [
        [1, 2],
        [2, 2],
        [3, 2],
        [4, 2],
      ],
    ],
  ]
  it.each(known)('a known field of %j with another wire type', (path, fields) => {
    for (const [n, wire] of fields) {
      expect(refusal(path, n * 8 + wire)).toBeUndefined()
      for (const other of [0, 1, 2, 3, 4, 5, 6, 7]) {
        if (other !== wire) expect(refusal(path, n * 8 + other), `${n} as ${other}`).toBe('bad-protobuf')
      }
    }
    // Fields that nobody knows are passed over.
    expect(refusal(path, 99 * 8)).toBeUndefined()
    expect(refusal(path, 99 * 8 + 2)).toBeUndefined()
    expect(refusal(path, 99 * 8 + 3)).toBe('bad-protobuf')
    expect(refusal(path, 2)).toBe('bad-protobuf')
  })

  it('a topic that is no UTF-8', () => {
    expect(codeOf(field(3, field(3, field(1, Uint8Array.of(0x74, 0xff)))))).toBe('bad-utf8')
  })

  it('a sub-message that is longer than what holds it', () => {
    const inner = concat([Uint8Array.of(0x0a, 5), fromUtf8('topic')])
    expect(codeOf(field(3, Uint8Array.of(0x1a, 7), inner))).toBeUndefined()
    expect(codeOf(concat([field(3, Uint8Array.of(0x1a, 8), inner), field(4, 'more')]))).toBe('bad-protobuf')
    expect(codeOf(concat([field(3, Uint8Array.of(0x1a, 6), inner), field(4, 'more')]))).toBe('bad-protobuf')
  })

  it('any cut of one that go wrote is one, or ends between two fields', () => {
    for (const { hex } of go) {
      const frame = fromHex(hex)
      for (let size = 0; size < frame.length; size++) {
        const code = codeOf(frame.subarray(0, size))
        expect([undefined, 'bad-protobuf']).toContain(code)
      }
    }
  })

  it('random bytes, and real ones with some of them changed, are read or refused', () => {
    const changed = fc
      .tuple(fc.constantFrom(...go.map((c) => c.hex)), fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 }))
      .map(([hex, changes]) => {
        const frame = fromHex(hex)
        for (const [at, byte] of changes) frame[at % frame.length] = byte
        return frame
      })
    const written = anyRpc.map((rpc) => encode(outgoing(rpc)))
    const spoilt = fc.tuple(written, fc.nat(), fc.nat(255)).map(([frame, at, byte]) => {
      if (frame.length > 0) frame[at % frame.length] = byte
      return frame
    })
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), changed, spoilt), (frame) => {
        expect([undefined, 'bad-protobuf', 'bad-utf8', 'oversized']).toContain(codeOf(frame))
      }),
      { numRuns: 3000 },
    )
  })

  it('of whatever is read, no more is kept than the budget says', () => {
    const budget = tight({ subscriptions: 1, publish: 1, ihaveMessages: 1, ihaveIds: 2, iwantIds: 2, idontwantIds: 2 })
    fc.assert(
      fc.property(list(anyRpc), (rpcs) => {
        const read = decodeRpc(concat(rpcs.map((rpc) => encode(outgoing(rpc)))), budget)
        expect(read.subscriptions.length).toBeLessThanOrEqual(1)
        expect(read.publish.length).toBeLessThanOrEqual(1)
        expect(read.ihave.length).toBeLessThanOrEqual(1)
        expect(read.ihave.flatMap((i) => i.ids).length).toBeLessThanOrEqual(2)
        expect(read.iwant.length).toBeLessThanOrEqual(2)
        expect(read.idontwant.length).toBeLessThanOrEqual(2)
      }),
    )
  })
})
