/* One topic among 13 nodes of five kinds on loopback: 3 of rhiza, go, js and rust each, and one of py. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { createGossipsub, type Gossipsub } from '../../src/protocols/gossipsub/gossipsub.ts'
import type { SignaturePolicy } from '../../src/protocols/gossipsub/sign.ts'
import { encodeControl, meshsubIds, rpcChunks } from '../../src/protocols/gossipsub/wire.ts'
import { available, buildPeers, seededBytes, type Peer, type PeerNode } from './peers.ts'
import { base64, heartbeatIntervalMs, kinds, names, theirs } from './pubsub-lab.ts'

await buildPeers()
const have = available()

const topic = 'mixed'
const maxQueueBytes = 1024 * 1024

interface Member {
  /** `go 1`. */
  readonly name: string
  readonly peerId: string
  addr(): string
  connect(to: Member): Promise<void>
  disconnect(from: Member): Promise<void>
  publish(data: Uint8Array): Promise<void>
  /** Data of the topic's messages so far, in base64. */
  got(): string[]
  mesh(): Promise<string[]>
  /** Ids of the peers that it is connected to. */
  connected(): Promise<string[]>
}

/** Can be stopped and started again under the same identity. */
class Rhiza implements Member {
  readonly name: string
  readonly peerId: string
  readonly #key: PrivateKey = generateKey('Ed25519')
  readonly #got: string[] = []
  node: Node | undefined
  pubsub: Gossipsub | undefined

  readonly #signing: SignaturePolicy

  constructor(name: string, signing: SignaturePolicy = 'StrictSign') {
    this.name = name
    this.#signing = signing
    this.peerId = String(this.#key.publicKey.peerId)
  }

  async start(): Promise<void> {
    const privateKey = this.#key
    this.node = await createNode({ privateKey, listen: ['/ip4/127.0.0.1/tcp/0'] })
    await this.node.start()
    // All have one address.
    const score = { ipColocationFactorWeight: 0 }
    const signing = this.#signing
    this.pubsub = createGossipsub(this.node, { privateKey, signing, heartbeatIntervalMs, score, maxQueueBytes })
    this.pubsub.start()
    this.pubsub.subscribe(topic, ({ data }) => this.#got.push(base64(data)))
  }

  async stop(): Promise<void> {
    await this.pubsub?.stop()
    await this.node?.stop()
  }

  addr(): string {
    return String(this.node?.addrs()[0])
  }

  async connect(to: Member): Promise<void> {
    await this.node?.dial(to.addr())
  }

  async disconnect({ peerId }: Member): Promise<void> {
    for (const connection of this.node?.connections() ?? []) {
      if (String(connection.peer) === peerId) await connection.close()
    }
  }

  async publish(data: Uint8Array): Promise<void> {
    await this.pubsub?.publish(topic, data)
  }

  got(): string[] {
    return this.#got
  }

  async mesh(): Promise<string[]> {
    return (this.pubsub?.mesh(topic) ?? []).map(String)
  }

  async connected(): Promise<string[]> {
    return (this.node?.connections() ?? []).map(({ peer }) => String(peer))
  }
}

function labMember(peer: PeerNode, name: string): Member {
  return {
    name,
    peerId: peer.peerId,
    addr: () => peer.addrs[0] ?? '',
    connect: async (to) => void (await peer.call('connect', { addr: to.addr() })),
    disconnect: async ({ peerId }) => void (await peer.call('disconnect', { peer: peerId })),
    publish: async (data) => void (await peer.call('pub', { topic, data: base64(data) })),
    got: () => peer.events.filter(({ event }) => event === 'message').map(({ data }) => String(data)),
    mesh: async () => (await peer.call('mesh', { topic }))['peers'] as string[],
    connected: async () => ((await peer.call('peers'))['peers'] as { peer: string }[]).map(({ peer: id }) => id),
  }
}

/** The same numbers every time. */
function seeded(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const ours: Rhiza[] = []
const peers: Peer[] = []
/** Sides of the split, each connected within itself. */
const left: Member[] = []
const right: Member[] = []
const everybody = (): Member[] => [...left, ...right]
const edges: [Member, Member][] = []

beforeAll(async () => {
  for (let i = 0; i < 3; i++) {
    const one = new Rhiza(`rhiza ${i}`)
    await one.start()
    ours.push(one)
    left.push(one)
  }
  for (const kind of kinds) {
    if (!have[kind]) continue
    const peer = await theirs(kind, kind === 'py' ? [] : ['--nodes', '3'])
    peers.push(peer)
    const nodes = kind === 'py' ? [peer] : peer.nodes
    const members = nodes.map((node, i) => labMember(node, `${kind} ${i}`))
    await Promise.all(nodes.map((node) => node.call('sub', { topic })))
    ;(kind === 'go' ? left : right).push(...members)
  }
  const random = seeded(7)
  const linked = (a: Member, b: Member): boolean => edges.some((edge) => edge.includes(a) && edge.includes(b))
  // A ring of each side, mixed; then whoever meets whom, to about 4 each.
  for (const side of [left, right]) {
    const row = side.toSorted((a, b) => a.name.slice(-1).localeCompare(b.name.slice(-1)))
    for (const [i, member] of row.entries()) {
      const next = row[(i + 1) % row.length]
      if (next !== undefined && next !== member && !linked(member, next)) edges.push([member, next])
    }
  }
  const row = everybody()
  while (edges.length < 2 * row.length) {
    const [a, b] = [row[random(row.length)], row[random(row.length)]]
    if (a !== undefined && b !== undefined && a !== b && !linked(a, b)) edges.push([a, b])
  }
  for (const [a, b] of edges) await a.connect(b)
})
afterAll(async () => {
  await Promise.all(peers.map((peer) => peer.stop()))
  for (const one of ours) await one.stop()
})

/** Everybody has so many in its mesh. */
async function everyMesh(least: number): Promise<void> {
  for (const member of everybody()) {
    await expect
      .poll(async () => (await member.mesh()).length, { timeout: 20_000, message: `the mesh of ${member.name}` })
      .toBeGreaterThanOrEqual(least)
  }
}

const times = (member: Member, data: string): number => member.got().filter((one) => one === data).length

/** Resolves when all of them have each message; then nobody has any twice, nor its own. */
async function allGet(members: readonly Member[], sent: ReadonlyMap<string, Member>, timeout = 30_000): Promise<void> {
  for (const member of members) {
    const missing = (): string[] => {
      const got = new Set(member.got())
      return [...sent].filter(([data, by]) => by !== member && !got.has(data)).map(([, by]) => `of ${by.name}`)
    }
    await expect.poll(missing, { timeout, message: `what ${member.name} has not got` }).toEqual([])
  }
  await sleep(3 * heartbeatIntervalMs)
  for (const [data, by] of sent) {
    for (const member of members) {
      const want = by === member ? 0 : 1
      expect([member.name, by.name, times(member, data)]).toEqual([member.name, by.name, want])
    }
  }
}

let count = 0
async function publish(by: Member, bytes = 200): Promise<string> {
  count++
  const data = seededBytes(bytes, 1_000 + count)
  await by.publish(data)
  return base64(data)
}

async function publishAll(members: readonly Member[]): Promise<Map<string, Member>> {
  const sent = new Map<string, Member>()
  for (const member of members) sent.set(await publish(member), member)
  return sent
}

const all = have.go && have.js && have.rust && have.py

for (const kind of ['rhiza', ...kinds] as const) {
  describe.skipIf(!all)(`${kind === 'rhiza' ? kind : names[kind]} in one mesh of 13 nodes of five kinds`, () => {
    it('is heard by each other, exactly once', async () => {
      expect(everybody()).toHaveLength(13)
      await everyMesh(2)
      const members = everybody().filter(({ name }) => name.startsWith(kind))
      const sent = await publishAll(members)
      // Large enough for IDONTWANT.
      for (const member of members) sent.set(await publish(member, 20_000), member)
      await allGet(everybody(), sent)
    })
  })
}

/** Ends all connections from one side to the other; gives those that there were. */
async function cut(): Promise<string[]> {
  const still: string[] = []
  for (const [side, other] of [
    [left, right],
    [right, left],
  ] as const) {
    for (const member of side) {
      const connected = new Set(await member.connected())
      for (const to of other.filter(({ peerId }) => connected.has(peerId))) {
        still.push(`${member.name} to ${to.name}`)
        // Unless it has heard of it already.
        await member.disconnect(to).catch(() => {})
      }
    }
  }
  return still
}

describe.skipIf(!all)('a mesh of 13 nodes of five kinds', () => {
  it('goes on when one subscriber stops reading, who costs a bounded queue', async () => {
    const slow = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    // Nothing is ever read of what comes.
    slow.handle(meshsubIds, () => new Promise(() => {}))
    await slow.start()
    try {
      for (const [i, member] of everybody().entries()) {
        if (i % 3 !== 0) continue
        const { peer } = await slow.dial(member.addr())
        const stream = await slow.newStream(peer, meshsubIds)
        await stream.write(...rpcChunks({ subscriptions: [{ subscribe: true, topic }] }))
        await stream.write(...rpcChunks({ control: encodeControl({ graft: [topic] }) }))
      }
      const [first] = ours
      if (first?.pubsub === undefined) throw new Error('no rhiza')
      await expect.poll(() => first.mesh()).toContain(String(slow.peerId))
      const sent = new Map<string, Member>()
      // 2.5 MiB: more than a stream's window and the queue hold. In bursts, so that nobody else's is ever full.
      for (let burst = 0; burst < 20; burst++) {
        for (let i = 0; i < 8; i++) sent.set(await publish(first, 16_384), first)
        await expect
          .poll(
            () =>
              everybody().every(
                (member) => member === first || sent.size <= member.got().filter((d) => sent.has(d)).length,
              ),
            { timeout: 20_000 },
          )
          .toBe(true)
        expect(first.pubsub.stats().queuedBytes).toBeLessThanOrEqual(maxQueueBytes)
      }
      expect(first.pubsub.stats().dropped).toBeGreaterThan(0)
      await allGet(everybody(), sent)
    } finally {
      await slow.stop()
    }
  })

  it('has a node again that was stopped and started, and brings it what is new', async () => {
    const [, gone] = ours
    if (gone === undefined) throw new Error('no rhiza')
    await gone.stop()
    const others = everybody().filter((member) => member !== gone)
    await allGet(others, await publishAll(others))
    const before = gone.got().length
    await gone.start()
    for (const [a, b] of edges) if (a === gone || b === gone) await gone.connect(a === gone ? b : a)
    await expect.poll(async () => (await gone.mesh()).length, { timeout: 20_000 }).toBeGreaterThanOrEqual(2)
    await allGet(everybody(), await publishAll(everybody()))
    expect(gone.got().length).toBeGreaterThanOrEqual(before + 12)
    expect(new Set(gone.got()).size).toBe(gone.got().length)
  })

  it('goes on in both halves when it is split, and as one when it heals', async () => {
    const across = edges.filter(([a, b]) => left.includes(a) !== left.includes(b))
    expect(across.length).toBeGreaterThan(5)
    await expect.poll(cut, { timeout: 10_000, interval: 2 * heartbeatIntervalMs }).toEqual([])
    const apart = new Map<string, Member>()
    for (const side of [left, right]) {
      const sent = await publishAll(side)
      await allGet(side, sent)
      const other = side === left ? right : left
      for (const [data, by] of sent) {
        for (const member of other)
          expect([by.name, member.name, times(member, data)]).toEqual([by.name, member.name, 0])
      }
      for (const [data, by] of sent) apart.set(data, by)
    }
    for (const [a, b] of across) await a.connect(b)
    await everyMesh(2)
    await sleep(5 * heartbeatIntervalMs)
    await allGet(everybody(), await publishAll(everybody()))
    // What was said on the other side may come by gossip, once.
    for (const data of apart.keys())
      for (const member of everybody()) expect(times(member, data)).toBeLessThanOrEqual(1)
  })
})

describe.skipIf(!(have.go && have.js && have.rust && have.py))(
  'a line of go, js, rust and py with rhiza between each two',
  () => {
    it.each(['strict', 'none'] as const)('carries messages from each end to the other, signed %s', async (sign) => {
      const line: Member[] = []
      const [mine, theirOwn]: [Rhiza[], Peer[]] = [[], []]
      try {
        for (const kind of kinds) {
          const peer = await theirs(kind, ['--pubsub-sign', sign])
          theirOwn.push(peer)
          await peer.call('sub', { topic })
          line.push(labMember(peer, kind))
          if (mine.length === 3) break
          const one = new Rhiza(`rhiza ${mine.length}`, sign === 'none' ? 'StrictNoSign' : 'StrictSign')
          mine.push(one)
          await one.start()
          line.push(one)
        }
        for (const [i, member] of line.entries()) {
          const next = line[i + 1]
          if (next !== undefined) await (next instanceof Rhiza ? next.connect(member) : member.connect(next))
        }
        for (const [i, member] of line.entries()) {
          const count = i === 0 || i === line.length - 1 ? 1 : 2
          await expect.poll(async () => (await member.mesh()).length, { timeout: 10_000 }).toBe(count)
        }
        const sent = await publishAll(line)
        for (const member of line) sent.set(await publish(member, 20_000), member)
        await allGet(line, sent)
      } finally {
        await Promise.all(theirOwn.map((peer) => peer.stop()))
        for (const one of mine) await one.stop()
      }
    })
  },
)
