/* What bytes can do to whoever decodes them: how much is drawn, how deep it goes, and what it ends with. */
import { describe, expect, it, vi } from 'vitest'
import { concat, fromHex, fromUtf8 } from '../../src/bytes.ts'
import { errorCode, ProtocolError } from '../../src/errors.ts'
import { readCar, type ReadCarOptions } from '../../src/ipld/car.ts'
import { cidOf, codec } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import { encodeVarint } from '../../src/varint.ts'
import { watchProcess } from './hostile.ts'

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

function codeOf(name: string, bytes: Uint8Array): string | undefined {
  try {
    codecs.byName(name)?.decode(bytes)
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError)
    return errorCode(error)
  }
  return 'no error'
}

/** `unit` again and again, up to 2 MiB. */
function full(unit: Uint8Array): Uint8Array {
  const out = new Uint8Array(2 ** 21)
  for (let at = 0; at + unit.length <= out.length; at += unit.length) out.set(unit, at)
  return out
}

describe('a block of 2 MiB', () => {
  it.each([
    ['dag-cbor', 'of lists in lists', full(fromHex('81')), 'oversized'],
    ['dag-cbor', 'of lists that each claim 16,383 items', full(fromHex('993fff')), 'oversized'],
    ['dag-cbor', 'of maps in maps', full(fromHex('a160')), 'oversized'],
    ['dag-cbor', 'of tags', full(fromHex('c1')), 'bad-block'],
    ['dag-cbor', 'of link tags', full(fromHex('d82a')), 'bad-block'],
    ['dag-cbor', 'of lists of no length', full(fromHex('9f')), 'bad-block'],
    ['dag-cbor', 'of empty lists', concat([fromHex('9a001ffffa'), full(fromHex('80')).subarray(0, -6)]), 'oversized'],
    ['cbor', 'of lists in lists', full(fromHex('81')), 'oversized'],
    ['dag-json', 'of open brackets', full(fromUtf8('[')), 'oversized'],
    ['dag-json', 'of open braces', full(fromUtf8('{"":')), 'oversized'],
    ['dag-json', 'of the reserved key', full(fromUtf8('{"/":')), 'oversized'],
    ['dag-json', 'of the reserved keys', full(fromUtf8('{"/":{"bytes":')), 'oversized'],
    ['dag-json', 'of spaces', full(fromUtf8(' ')), 'bad-block'],
    ['dag-json', 'of digits', full(fromUtf8('9')), 'bad-block'],
    ['dag-json', 'of digits behind a point', concat([fromUtf8('0.'), full(fromUtf8('9')).subarray(2)]), 'no error'],
    ['dag-json', 'of quotes that are escaped', concat([fromUtf8('"'), full(fromUtf8('\\"')).subarray(1)]), 'bad-block'],
    ['json', 'of lists in lists', full(fromUtf8('[[')), 'oversized'],
    ['dag-pb', 'of empty links', full(fromHex('1200')), 'bad-block'],
    ['dag-pb', 'of Data', full(fromHex('0a00')), 'bad-block'],
  ])('%s: %s', (name, _what, bytes, code) => {
    expect(codeOf(name, bytes)).toBe(code)
  })

  it('with 100,000 keys, the last one a second time, is refused for it', () => {
    const keys = Array.from({ length: 100_000 }, (_, i) => `"${i}":0`)
    expect(codeOf('dag-json', fromUtf8(`{${keys.join(',')}}`))).toBe('no error')
    expect(codeOf('dag-json', fromUtf8(`{${keys.join(',')},"99999":0}`))).toBe('bad-block')
  })
})

/** Reads a CAR that begins with `start` and goes on with `more` for ever: the error's code, and the bytes drawn. */
async function endless(start: Uint8Array, more: Uint8Array, options?: ReadCarOptions): Promise<[unknown, number]> {
  let drawn = 0
  let ended = 0
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      drawn += start.length
      yield start
      for (;;) {
        drawn += more.length
        yield more
        // As from a socket: the loop turns.
        await new Promise((resolve) => setImmediate(resolve))
      }
    } finally {
      ended++
    }
  }
  try {
    const { blocks } = await readCar(source(), options)
    for await (const _ of blocks);
  } catch (error) {
    // After an abort it is not waited for.
    await vi.waitFor(() => expect(ended).toBe(1))
    return [errorCode(error) ?? error, drawn]
  }
  throw new Error('it has no end')
}

describe('a CAR without end', () => {
  const header = fromHex('11a265726f6f7473806776657273696f6e01')
  const pragma = fromHex('0aa16776657273696f6e02')
  const kib = new Uint8Array(1024)

  it('is left before the bytes of a header or section that is too large', async () => {
    expect(await endless(encodeVarint(2 ** 50), kib)).toEqual(['oversized', 8])
    expect(await endless(concat([header, encodeVarint(2 ** 50)]), kib)).toEqual(['oversized', header.length + 8])
    expect(await endless(Uint8Array.of(), Uint8Array.of(0x80))).toEqual(['bad-car', 8])
    expect(await endless(header, Uint8Array.of(0xff))).toEqual(['bad-car', header.length + 8])
  })

  it('is left at the first section that is none', async () => {
    expect(await endless(header, kib)).toEqual(['bad-car', header.length + 1024])
    const lie = concat([encodeVarint(40), cidOf(codec.raw, kib).bytes, new Uint8Array(4)])
    expect(await endless(header, lie)).toEqual(['bad-block', header.length + lie.length])
  })

  it('ends with its data where it is a CARv2, however much comes', async () => {
    const head = new Uint8Array(40)
    const view = new DataView(head.buffer)
    view.setBigUint64(16, 51n, true)
    view.setBigUint64(24, 100n, true)
    const [code, drawn] = await endless(
      concat([pragma, head, header]),
      Uint8Array.of(0x24, ...cidOf(codec.raw, fromUtf8('')).bytes),
    )
    expect(code).toBe('bad-car')
    expect(drawn).toBeLessThan(51 + 150)
  })

  it('ends when it is told to, in padding without end and in sections without end', async () => {
    const reason = new Error('enough')
    for (const start of [
      concat([pragma, new Uint8Array(16), fromHex('ffffffffffff0f00'), fromHex('0100000000000000'), new Uint8Array(8)]),
      header,
    ]) {
      const controller = new AbortController()
      const reading = endless(start, concat([encodeVarint(37), cidOf(codec.raw, fromUtf8('x')).bytes, fromUtf8('x')]), {
        signal: controller.signal,
      })
      setTimeout(() => controller.abort(reason), 20)
      expect((await reading)[0]).toBe(reason)
    }
  })
})
