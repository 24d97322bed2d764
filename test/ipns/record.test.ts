import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ProtocolError } from '../../src/errors.ts'
import {
  createRecord,
  decodeRecord,
  formatName,
  nameOf,
  parseName,
  parseValidity,
  selectRecord,
  validateRecord,
} from '../../src/ipns/record.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { specCases } from '../vectors.ts'

const now = Date.UTC(2026, 10, 22)

describe('the records of the specification', () => {
  const cases = specCases('ipns/records.json') as {
    name: string
    ipnsName: string
    record: string
    value: string | null
  }[]
  it.each(cases)('$name', async ({ ipnsName, record, value }) => {
    const checked = validateRecord(parseName(ipnsName), new Uint8Array(Buffer.from(record, 'base64')), now)
    if (value === null) await expect(checked).rejects.toBeInstanceOf(ProtocolError)
    else expect((await checked).value).toBe(value)
  })
})

describe('a record of ours', () => {
  it.each(['Ed25519', 'RSA', 'Secp256k1', 'ECDSA'] as const)('with a key of type %s is valid', async (type) => {
    const key = await generateKey(type)
    const name = nameOf(key.publicKey)
    const options = { value: '/ipfs/bafkqaaa', sequence: 7n, now, ttlMs: 60_000, lifetimeMs: 3_600_000 }
    for (const v1Compatible of [true, false]) {
      const record = await createRecord(key, { ...options, v1Compatible })
      expect(await validateRecord(name, record, now)).toEqual({
        value: '/ipfs/bafkqaaa',
        sequence: 7n,
        validity: '2026-11-22T01:00:00.000000000Z',
        ttlMs: 60_000,
      })
    }
    expect(parseName(formatName(name)).equals(name)).toBe(true)
    expect(parseName(`/ipns/${formatName(name)}`).equals(name)).toBe(true)
  })

  it('is not valid a moment after its date, for another name, or with one bit changed', async () => {
    const key = generateKey()
    const name = nameOf(key.publicKey)
    const record = await createRecord(key, { value: '/ipfs/bafkqaaa', sequence: 0n, now, lifetimeMs: 1_000 })
    await expect(validateRecord(name, record, now + 999)).resolves.toBeDefined()
    await expect(validateRecord(name, record, now + 1_000)).rejects.toMatchObject({ code: 'bad-message' })
    const other = nameOf(generateKey().publicKey)
    await expect(validateRecord(other, record, now)).rejects.toMatchObject({ code: 'bad-signature' })
    const said = await validateRecord(name, record, now)
    for (let i = 0; i < record.length; i++) {
      const changed = record.slice()
      changed[i] = (changed[i] ?? 0) ^ 1
      const result = await validateRecord(name, changed, now).catch((error: unknown) => error)
      // The V1 signature proves nothing, and nobody looks at it.
      if (!(result instanceof ProtocolError)) expect(result).toEqual(said)
    }
  })

  it('of more than 10 KiB is not made, and not read', async () => {
    const key = generateKey()
    const create = (length: number) => createRecord(key, { value: `/ipfs/${'a'.repeat(length)}`, sequence: 0n, now })
    await expect(create(10_240)).rejects.toBeInstanceOf(RangeError)
    expect(() => decodeRecord(new Uint8Array(10_241))).toThrow(expect.objectContaining({ code: 'oversized' }))
  })

  it('counts by its sequence, then by how long it is valid', async () => {
    const key = generateKey()
    const record = async (sequence: bigint, lifetimeMs: number) =>
      decodeRecord(await createRecord(key, { value: '/ipfs/bafkqaaa', sequence, now, lifetimeMs }))
    const records = [
      await record(1n, 9_000),
      await record(2n, 1_000),
      await record(2n, 2_000),
      await record(0n, 99_000),
    ]
    expect(selectRecord(records)).toBe(2)
    expect(selectRecord(records.slice(0, 1))).toBe(0)
    const big = await record((1n << 63n) + 5n, 1_000)
    expect(big.sequence).toBe((1n << 63n) + 5n)
    expect(selectRecord([...records, big])).toBe(4)
  })
})

it('a record that is none gives a ProtocolError or nothing', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeRecord(bytes)
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError)
      }
    }),
  )
})

it('dates are read with nanoseconds and zones', () => {
  expect(parseValidity('1970-01-01T00:00:00.000000001Z')).toBe(1n)
  expect(parseValidity('1970-01-01T01:00:00.5+01:00')).toBe(500_000_000n)
  for (const text of [
    '',
    '2026-11-22',
    '2026-13-22T00:00:00Z',
    '2026-11-22T00:00:00',
    '2026-11-22T00:00:00.1234567890Z',
  ]) {
    expect(() => parseValidity(text)).toThrow(ProtocolError)
  }
})
