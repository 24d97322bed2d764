import { describe, expect, it } from 'vitest'
import { toHex } from '../../src/bytes.ts'
import { fakeEnv } from '../../src/env.ts'
import { UnavailableError } from '../../src/errors.ts'
import { createNames, formatName, ipnsValidator, nameOf, type NameRouting } from '../../src/ipns/ipns.ts'
import { createRecord, decodeRecord } from '../../src/ipns/record.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { memoryRecords } from '../../src/store/records.ts'

/** One place that keeps the last value of each key. */
function routing(): NameRouting & { values: Map<string, Uint8Array>; gets: number; down: boolean } {
  const values = new Map<string, Uint8Array>()
  return {
    values,
    gets: 0,
    down: false,
    async get(key) {
      this.gets++
      const value = values.get(toHex(key))
      if (value === undefined) throw new UnavailableError('not-found', 'nobody has it')
      return value
    },
    async put(key, value) {
      if (this.down) throw new UnavailableError('unreachable', 'nobody there')
      values.set(toHex(key), value)
      return 20
    },
  }
}

const first = '/ipfs/bafkqaaa'
const second = '/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi'

describe('names', () => {
  it('point where they were last pointed; the sequence grows with each other path', async () => {
    const env = fakeEnv()
    const net = routing()
    const names = createNames({ routing: net, records: memoryRecords({ env }), env })
    const key = generateKey()
    const name = formatName(nameOf(key.publicKey))
    expect((await names.publish(key, first)).record.sequence).toBe(0n)
    expect((await names.publish(key, first)).record.sequence).toBe(0n)
    expect((await names.publish(key, second)).record.sequence).toBe(1n)
    expect((await names.resolve(`/ipns/${name}`)).path).toBe(second)
  })

  it('keep their sequence across a restart, and take over what another machine published', async () => {
    const env = fakeEnv()
    const net = routing()
    const records = memoryRecords({ env })
    const key = generateKey()
    await createNames({ routing: net, records, env }).publish(key, first)
    net.values.clear()
    const { record } = await createNames({ routing: net, records, env }).publish(key, second)
    expect(record.sequence).toBe(1n)
    const elsewhere = createNames({ routing: net, records: memoryRecords({ env }), env })
    expect((await elsewhere.publish(key, first)).record.sequence).toBe(2n)
  })

  it('give a sequence number once, also when two publish at the same time', async () => {
    const env = fakeEnv()
    const names = createNames({ routing: routing(), records: memoryRecords({ env }), env })
    const key = generateKey()
    const all = await Promise.all([first, second, first].map((path) => names.publish(key, path)))
    expect(all.map(({ record }) => record.sequence)).toEqual([0n, 1n, 2n])
  })

  it('are stored before they travel: the number of a publish that failed is not used for another path', async () => {
    const env = fakeEnv()
    const net = routing()
    const names = createNames({ routing: net, records: memoryRecords({ env }), env })
    const key = generateKey()
    net.down = true
    await expect(names.publish(key, first)).rejects.toBeInstanceOf(UnavailableError)
    net.down = false
    expect((await names.publish(key, second)).record.sequence).toBe(1n)
  })

  it('are followed from name to name, but not for ever', async () => {
    const env = fakeEnv()
    const names = createNames({ routing: routing(), records: memoryRecords({ env }), env })
    const [a, b] = [generateKey(), generateKey()]
    const nameOfB = formatName(nameOf(b.publicKey))
    await names.publish(b, second)
    await names.publish(a, `/ipns/${nameOfB}/docs`)
    const nameOfA = nameOf(a.publicKey)
    expect((await names.resolve(nameOfA)).path).toBe(`${second}/docs`)
    expect((await names.resolve(nameOfA, { recursive: false })).path).toBe(`/ipns/${nameOfB}/docs`)
    await names.publish(b, `/ipns/${formatName(nameOfA)}`)
    await expect(names.resolve(nameOfA)).rejects.toMatchObject({ code: 'bad-message' })
    await names.publish(b, '/ipns/docs.example.com/x')
    expect((await names.resolve(nameOfA)).path).toBe('/ipns/docs.example.com/x/docs')
  })

  it('are looked up again when their time to live is over', async () => {
    const env = fakeEnv()
    const net = routing()
    const key = generateKey()
    await createNames({ routing: net, records: memoryRecords({ env }), env }).publish(key, first, { ttlMs: 60_000 })
    const reader = createNames({ routing: net, records: memoryRecords({ env }), env })
    const name = nameOf(key.publicKey)
    const before = net.gets
    await reader.resolve(name)
    await reader.resolve(name)
    expect(net.gets - before).toBe(1)
    await reader.resolve(name, { noCache: true })
    await env.clock.advance(60_000)
    await reader.resolve(name)
    expect(net.gets - before).toBe(3)
  })

  it('are published again before they die, until they are stopped', async () => {
    const env = fakeEnv()
    const net = routing()
    const names = createNames({ routing: net, records: memoryRecords({ env }), env, republishMs: 3_600_000 })
    const key = generateKey()
    await names.publish(key, first)
    const [before] = [...net.values.values()].map((value) => decodeRecord(value).validity)
    names.startRepublishing(() => key)
    await env.clock.advance(3_600_000)
    await expect.poll(() => [...net.values.values()].map((value) => decodeRecord(value).validity)[0]).not.toBe(before)
    expect([...net.values.values()].map((value) => decodeRecord(value).sequence)).toEqual([0n])
    await names.stop()
    expect(env.clock.waiting).toBe(0)
  })

  it('are refused where the path is none, and where the routing lies', async () => {
    const env = fakeEnv()
    const net = routing()
    const names = createNames({ routing: net, records: memoryRecords({ env }), env })
    const [key, other] = [generateKey(), generateKey()]
    await expect(names.publish(key, 'bafkqaaa')).rejects.toBeInstanceOf(TypeError)
    const forged = await createRecord(other, { value: first, sequence: 9n, now: env.clock.wallTime() })
    net.get = () => Promise.resolve(forged)
    await expect(names.resolve(nameOf(key.publicKey))).rejects.toMatchObject({ code: 'bad-signature' })
  })
})

it('the DHT takes only records of their own name, and the newest of them', async () => {
  const env = fakeEnv()
  const validator = ipnsValidator(env)
  const key = generateKey()
  const now = env.clock.wallTime()
  const [old, young] = await Promise.all([1n, 2n].map((sequence) => createRecord(key, { value: first, sequence, now })))
  const dhtKey = new Uint8Array([...new TextEncoder().encode('/ipns/'), ...nameOf(key.publicKey).bytes])
  await validator.validate(dhtKey, young as Uint8Array)
  expect(validator.select(dhtKey, [old as Uint8Array, young as Uint8Array])).toBe(1)
  const otherKey = new Uint8Array([...new TextEncoder().encode('/ipns/'), ...nameOf(generateKey().publicKey).bytes])
  await expect(validator.validate(otherKey, young as Uint8Array)).rejects.toMatchObject({ code: 'bad-signature' })
})
