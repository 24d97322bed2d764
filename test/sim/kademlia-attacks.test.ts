/* attacks.md part E, 33 to 36: who lies in the DHT, and what it costs the others. */
import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import type { QueryEvent } from '../../src/dht/dht.ts'
import { aminoId, type Message } from '../../src/dht/wire.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { Field, among, publicAddr } from './field.ts'
import { Liars, attack, type Naming } from './liars.ts'

const wan = { networks: ['wan'] as const, refreshMs: 1e9 }

async function poisoned(naming: Naming, nodes = 40): Promise<{ field: Field; liars: Liars }> {
  const field = new Field({ seed: 21, addr: publicAddr, dht: wan })
  await field.seed(nodes)
  const liars = new Liars(naming)
  for (const member of field.members.slice(0, nodes / 5)) liars.turn(member)
  return { field, liars }
}

describe('among liars', () => {
  it.each([1, 2, 3, 4, 5])('95 of 100 provider lookups succeed when a fifth of all lies, seed %i', async (seed) => {
    const { found, maxMs } = await attack({ seed, nodes: 60, liars: 0.2, naming: 'mixed', lookups: 100 })
    expect(found).toBeGreaterThanOrEqual(95)
    expect(maxMs).toBeLessThanOrEqual(60_000)
  })

  it.each([true, false])('25 Sybils around a key hide it only when nothing is done: defences %s', async (on) => {
    const defences = { diversity: on, verify: on, widen: on, blame: on }
    const sybils = { keys: 2, each: 25 }
    const { found } = await attack({
      seed: 1,
      nodes: 60,
      liars: 0,
      naming: 'each other',
      lookups: 20,
      defences,
      sybils,
    })
    if (on) expect(found).toBeGreaterThanOrEqual(19)
    else expect(found).toBeLessThanOrEqual(10)
  })

  it.each(['private', 'nobody there', 'thousands'] as const)(
    'a lookup ends in time, asks nobody without end, and keeps its table when liars name %s',
    async (naming) => {
      const { field, liars } = await poisoned(naming)
      const honest = field.members.filter((member) => !liars.members.includes(member))
      for (let i = 0; i < 5; i++) {
        const asker = field.pick(honest)
        const since = field.time.now()
        let queries = 0
        const onEvent = (event: QueryEvent): void => void (event.type === 'done' && (queries = event.queries))
        const found = await field.time.until(asker.dht.closestPeers(fromUtf8(`poisoned ${i}`), { onEvent }))
        expect(field.time.now() - since).toBeLessThanOrEqual(60_000)
        expect(queries).toBeLessThanOrEqual(500)
        expect(found.filter(({ peer }) => among(honest, peer.bytes)).length).toBeGreaterThanOrEqual(10)
        // Only who has answered is in a table, and that is members alone: nobody invented, nobody private, not itself.
        for (const { peer } of asker.kad.table.peers()) {
          expect(among(field.members, peer.bytes)).toBe(true)
          expect(peer.equals(asker.host.peerId)).toBe(false)
        }
        expect(asker.host.book.peers().length).toBeLessThanOrEqual(4_096 + 200)
      }
      expect(liars.asked).toBeGreaterThan(10)
      await field.stop()
    },
  )

  it('whoever joins through one liar and one honest peer gets to know the honest', async () => {
    const { field, liars } = await poisoned('each other')
    const honest = field.members.filter((member) => !liars.members.includes(member))
    const [liar] = liars.members
    const newcomer = await field.start(field.make({ mode: 'server' }))
    for (const door of [liar, honest[3]]) await field.time.until(newcomer.host.dial(door?.host.addrs() ?? []))
    await field.time.run(10_000)
    const known = newcomer.kad.table.peers().filter(({ peer }) => among(honest, peer.bytes))
    expect(known.length).toBeGreaterThan(newcomer.kad.table.size / 2)
    await field.stop()
  })

  it('liars of one IP network get three places in a table and no more', async () => {
    const field = new Field({
      seed: 23,
      addr: (i) => (i < 30 ? `/ip4/61.1.1.${i + 1}/tcp/1` : publicAddr(i)),
      dht: wan,
    })
    await field.seed(40)
    const crowded = field.members.slice(0, 30)
    const asker = field.members[35]
    for (const each of crowded) await field.time.until(asker?.host.dial(each.host.addrs()) ?? Promise.reject())
    await field.time.run(20_000)
    const places = asker?.kad.table.peers().filter(({ peer }) => among(crowded, peer.bytes)) ?? []
    expect(places.length).toBeGreaterThan(0)
    expect(places.length).toBeLessThanOrEqual(3)
    await field.stop()
  })
})

describe('a server that is flooded', () => {
  it('takes no provider for somebody else, no wrong key, and keeps its stores bounded', async () => {
    const limits = { maxPerKey: 20, maxPerProvider: 50, maxRecords: 200 }
    const field = new Field({ seed: 22, dht: { refreshMs: 1e9, providers: limits, values: { maxValues: 10 } } })
    await field.seed(12)
    const [server, attacker, victim] = field.members
    if (server === undefined || attacker === undefined || victim === undefined) throw new Error('too few')
    const to = { peer: server.host.peerId, addrs: [server.host.addr] }
    const provider = (id: Uint8Array) => [{ id, addrs: [attacker.host.addr.bytes] }]
    const add = (key: Uint8Array, id: Uint8Array): Promise<void> =>
      field.time.until(
        attacker.kad.network.tell(to, { type: 'ADD_PROVIDER', key, closerPeers: [], providerPeers: provider(id) }),
      )
    const key = cidOf(0x55, fromUtf8('not mine')).multihash.bytes
    await expect(add(key, victim.host.peerId.bytes)).rejects.toThrow()
    expect(server.kad.providers.of(key)).toEqual([])
    await expect(add(new Uint8Array(81), attacker.host.peerId.bytes)).rejects.toThrow()
    for (let i = 0; i < 80; i++) await add(fromUtf8(`flood ${i}`), attacker.host.peerId.bytes)
    expect(server.kad.providers.size).toBe(50)
    const put = (name: string, value: Uint8Array): Promise<unknown> => {
      const record = { key: fromUtf8(name), value }
      const message: Message = { type: 'PUT_VALUE', key: record.key, record, closerPeers: [], providerPeers: [] }
      return field.time.until(attacker.kad.network.ask(to, message))
    }
    // No key of that peer, no namespace that anybody validates, too big.
    await expect(put('/pk/somebody', new Uint8Array(36))).rejects.toThrow()
    await expect(put('/none/of these', new Uint8Array(8))).rejects.toThrow()
    await expect(put('/pk/somebody', new Uint8Array(20_000))).rejects.toThrow()
    expect(server.kad.values.size).toBe(0)
    // It still answers.
    expect((await field.time.until(victim.dht.closestPeers(key))).length).toBeGreaterThan(5)
    await field.stop()
  })

  it('does not let members of another network into its table, though they use the same protocol name', async () => {
    const field = new Field({ seed: 24, addr: publicAddr, dht: wan })
    await field.seed(10)
    const foreign = field.make({ networks: ['lan'] }, '/ip4/192.168.7.7/tcp/1')
    foreign.host.handle(aminoId, (stream) => stream.closeWrite())
    await field.start(foreign)
    const [member] = field.members
    await field.time.until(foreign.host.dial(member?.host.addrs() ?? []))
    await field.time.run(20_000)
    expect(member?.kad.table.has(foreign.host.peerId)).toBe(false)
    await field.stop()
  })
})
