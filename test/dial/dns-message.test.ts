import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { decodeAnswer, encodeQuery, recordTypes } from '../../src/dial/dns-message.ts'
import { ProtocolError } from '../../src/errors.ts'
import { answerTo, nameBytes, record } from './dns-server.ts'

const { A, AAAA, TXT } = recordTypes

const alias = (n: number): Uint8Array => record(`${n}.b`, 5, nameBytes(`${n + 1}.b`), 1)

describe('DNS messages', () => {
  it('ask as the examples of RFC 8484 §4.1.1 do', () => {
    expect(toHex(encodeQuery('www.example.com', A))).toBe(
      '00000100000100000000000003777777076578616d706c6503636f6d0000010001',
    )
    expect(toHex(encodeQuery('www.example.com.', A))).toBe(toHex(encodeQuery('www.example.com', A)))
  })

  it('answer as the example of RFC 8484 §4.2.2 does', () => {
    const bytes = fromHex(
      '00008180000100010000000003777777076578616d706c6503636f6d00001c0001c00c001c000100000e7d001020010db8abcd00120001000200030004',
    )
    expect(decodeAnswer(bytes, 'WWW.example.com', AAAA)).toEqual({
      values: ['2001:db8:abcd:12:1:2:3:4'],
      ttlSeconds: 3_709,
    })
  })

  it('join the strings of a TXT record, and hold for the least of the times', () => {
    const long = `dnsaddr=${'x'.repeat(400)}`
    const bytes = answerTo('a.b', TXT, [record('a.b', TXT, long, 300), record('a.b', TXT, 'two', 60)])
    expect(decodeAnswer(bytes, 'a.b', TXT)).toEqual({ values: [long, 'two'], ttlSeconds: 60 })
  })

  it('follow aliases, whatever their order, and take no record of another name', () => {
    const bytes = answerTo('a.b', A, [
      record('c.d', 5, nameBytes('E.f'), 20),
      record('e.F', A, Uint8Array.of(1, 2, 3, 4), 90),
      record('evil.b', A, Uint8Array.of(6, 6, 6, 6), 90),
      record('a.b', 5, nameBytes('c.d'), 80),
      record('e.f', AAAA, new Uint8Array(16), 90),
    ])
    expect(decodeAnswer(bytes, 'a.b', A)).toEqual({ values: ['1.2.3.4'], ttlSeconds: 20 })
  })

  it('may be empty, also for a name that does not exist', () => {
    expect(decodeAnswer(answerTo('a.b', A, []), 'a.b', A)).toEqual({ values: [], ttlSeconds: 0 })
    expect(decodeAnswer(answerTo('a.b', A, [], 3), 'a.b', A)).toEqual({ values: [], ttlSeconds: 0 })
  })

  const sound = answerTo('a.b', A, [record('a.b', A, Uint8Array.of(1, 2, 3, 4), 9)])
  const changed = (at: number, ...bytes: number[]): Uint8Array => {
    const out = sound.slice()
    out.set(bytes, at)
    return out
  }

  it.each<[what: string, bytes: Uint8Array, message: string]>([
    ['a question', encodeQuery('a.b', A), 'it is a question'],
    ['a truncated answer', changed(2, 0x83), 'truncated'],
    ['a server that failed', answerTo('a.b', A, [], 2), 'failed with code 2'],
    ['another name', answerTo('c.d', A, []), 'another question'],
    ['another type', answerTo('a.b', TXT, []), 'another question'],
    ['two questions', changed(5, 2), 'another question'],
    ['more records than it has', changed(7, 2), 'cut short'],
    ['more records than anybody needs', changed(6, 255, 255), '65535 records'],
    ['an IPv4 address of 3 bytes', answerTo('a.b', A, [record('a.b', A, new Uint8Array(3), 1)]), 'an address of 3'],
    [
      'a TXT string that ends too early',
      answerTo('a.b', TXT, [record('a.b', TXT, Uint8Array.of(9, 1), 1)]),
      'TXT record',
    ],
    [
      'a name that points at itself',
      answerTo('a.b', A, [concat([fromHex('c015'), new Uint8Array(10)])]),
      'points forwards',
    ],
    [
      'a name that points forwards',
      answerTo('a.b', A, [concat([fromHex('c040'), new Uint8Array(60)])]),
      'points forwards',
    ],
    ['a label of an unknown kind', answerTo('a.b', A, [concat([fromHex('80'), new Uint8Array(20)])]), 'unknown kind'],
    ['an alias that is longer than it says', answerTo('a.b', A, [concat([nameBytes('a.b'), fromHex('0005000100000001000103612e6200')])]), 'another length'], // prettier-ignore
    [
      'an endless chain of aliases',
      answerTo(
        '0.b',
        A,
        Array.from({ length: 40 }, (_, n) => alias(n)),
      ),
      'too many aliases',
    ],
    ['a ring of aliases', answerTo('a.b', A, [record('a.b', 5, nameBytes('a.b'), 1)]), 'too many aliases'],
    ['nothing', new Uint8Array(0), 'cut short'],
  ])('are refused: %s', (what, bytes, message) => {
    const name = what.includes('chain') ? '0.b' : 'a.b'
    const type = what.includes('TXT') ? TXT : A
    expect(() => decodeAnswer(bytes, name, type)).toThrow(message)
    expect(() => decodeAnswer(bytes, name, type)).toThrow(ProtocolError)
  })

  it('of any bytes are an answer or a ProtocolError', () => {
    const txt = answerTo('a.b', TXT, [record('a.b', TXT, 'some text', 9), record('a.b', 5, nameBytes('a.b'), 1)])
    const header = txt.subarray(0, 21)
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 80 }),
          fc.uint8Array({ maxLength: 80 }).map((tail) => concat([header, tail])),
          fc.tuple(fc.nat(txt.length - 1), fc.nat(255)).map(([at, byte]) => {
            const out = txt.slice()
            out[at] = byte
            return out
          }),
          fc.nat(txt.length - 1).map((end) => txt.subarray(0, end)),
        ),
        (bytes) => {
          try {
            expect(Array.isArray(decodeAnswer(bytes, 'a.b', TXT).values)).toBe(true)
          } catch (error) {
            expect(error).toBeInstanceOf(ProtocolError)
          }
        },
      ),
      { numRuns: 2_000 },
    )
  })

  it.each(['', 'a..b', `${'x'.repeat(64)}.b`, 'ö.b', 'a b.c', Array(60).fill('abcd').join('.')])(
    'ask nothing about %j, which is no name',
    (name) => expect(() => encodeQuery(name, A)).toThrow(TypeError),
  )

  it('take any bytes in a TXT record', () => {
    const bytes = answerTo('a.b', TXT, [record('a.b', TXT, Uint8Array.of(2, 0xff, 0x41), 1)])
    expect(decodeAnswer(bytes, 'a.b', TXT).values).toEqual(['ÿA'])
    expect(fromUtf8('A')).toEqual(Uint8Array.of(0x41))
  })
})
