import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex, toUtf8 } from '../../../src/bytes.ts'
import { ProtocolError, UnavailableError } from '../../../src/errors.ts'
import { answer, confirm, select } from '../../../src/protocols/multistream/multistream.ts'
import { dialer, listener, opening, type Negotiation } from '../../../src/protocols/multistream/negotiate.ts'
import {
  TokenReader,
  agreement,
  agreementIn,
  encodeToken,
  encodeTokens,
  header,
} from '../../../src/protocols/multistream/wire.ts'
import { BufferedStream, pair, type Stream } from '../../../src/stream.ts'

function splits(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [...new Set(cuts.map((c) => c % (bytes.length + 1)))].toSorted((a, b) => a - b)
  return [0, ...at].map((start, i) => bytes.subarray(start, at[i] ?? bytes.length)).filter((c) => c.length > 0)
}

function feed(side: Negotiation, chunks: readonly Uint8Array[]): string[] {
  const sent: string[] = []
  const rest: Uint8Array[] = []
  for (const chunk of chunks) {
    if (side.outcome === undefined) sent.push(...side.receive(chunk))
    else rest.push(chunk)
  }
  return [...sent, toHex(concat([side.outcome?.rest ?? new Uint8Array(0), ...rest]))]
}

async function propose(id: string, remembers: boolean): Promise<void> {
  const [a, b] = pair()
  await a.write(encodeTokens(...opening([id])))
  await answer(
    b,
    () => true,
    () => remembers,
  )
}

describe('multistream-select 1.0', () => {
  it('writes the tokens of the spec', () => {
    expect(toHex(encodeToken('na'))).toBe('036e610a')
    expect(toHex(encodeToken(header))).toBe('132f6d756c746973747265616d2f312e302e300a')
  })

  it('refuses to write a protocol id longer than 1,024 bytes with its newline', () => {
    expect(encodeToken('x'.repeat(1023))).toHaveLength(1026)
    expect(() => encodeToken('x'.repeat(1024))).toThrow(RangeError)
  })

  it('agrees on the first proposal that the listener takes', async () => {
    const [a, b] = pair()
    const [dialed, answered] = await Promise.all([select(a, ['/x', '/y', '/z']), answer(b, (id) => id !== '/x')])
    expect([dialed.protocol, answered.protocol]).toEqual(['/y', '/y'])
  })

  it('lists what it tried when nothing is taken', async () => {
    const [a, b] = pair()
    const answered = answer(b, () => false)
    const error = await select(a, ['/x', '/y']).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UnavailableError)
    expect((error as UnavailableError).tried.map((t) => t.what)).toEqual(['/x', '/y'])
    await a.closeWrite()
    await expect(answered).rejects.toMatchObject({ code: 'truncated' })
  })

  it('leaves the bytes behind the negotiation to the next layer', async () => {
    const [a, b] = pair()
    await a.write(concat([encodeTokens(...opening(['/x'])), fromUtf8('hello')]))
    const { protocol, rest } = await answer(b, (id) => id === '/x')
    expect(protocol).toBe('/x')
    expect(toUtf8(rest ?? new Uint8Array(0))).toBe('hello')
  })

  it('agrees in one chunk as it does byte by byte, also on a protocol that it knows but does not take', async () => {
    agreement('/known/1.0.0')
    agreement('/known/1.0.1')
    for (const proposal of ['/known/1.0.0', '/known/1.0.1', '/not/seen', '/known/1.0']) {
      const opened = encodeTokens(...opening([proposal]))
      const [whole, byByte] = await Promise.all(
        [[opened.length], opened.keys().toArray()].map(async (cuts) => {
          const [a, b] = pair()
          for (const piece of splits(concat([opened, fromUtf8('data')]), cuts)) await a.write(piece)
          await a.closeWrite()
          const result = await answer(b, (id) => id !== '/known/1.0.1').catch((e: unknown) => String(e))
          await b.closeWrite()
          const replied = await new BufferedStream(a).readAll(100)
          return [typeof result === 'string' ? result : result.protocol, toHex(replied)]
        }),
      )
      expect(whole).toEqual(byByte)
      expect(whole).toEqual(
        proposal === '/known/1.0.1'
          ? [expect.any(String), toHex(encodeTokens(header, 'na'))]
          : [proposal, toHex(opened)],
      )
    }
  })

  it('hands over what a dialer wrote that is not there for the answer any more', async () => {
    // Known by its bytes, and read token by token.
    for (const id of ['/known/1.0.0', '/made-up/1.0.0']) {
      const [a, b] = pair()
      await a.write(concat([encodeTokens(...opening([id])), fromUtf8('write only')]))
      await a.closeWrite()
      const deaf = Object.assign(Object.create(b) as Stream, {
        read: () => b.read(),
        write: () => Promise.reject(new Error('the peer reads no more')),
      })
      const { protocol, rest } = await answer(deaf, (one) => one === id)
      expect([protocol, toUtf8(rest ?? new Uint8Array(0))]).toEqual([id, 'write only'])
    }
  })

  it('gives up when na can not be written: there is nothing to hand over', async () => {
    const [a, b] = pair()
    await a.write(encodeTokens(...opening(['/x'])))
    const gone = new Error('the peer reads no more')
    const deaf = Object.assign(Object.create(b) as Stream, { read: () => b.read(), write: () => Promise.reject(gone) })
    await expect(answer(deaf, () => false)).rejects.toBe(gone)
  })

  it('keeps no id by its bytes that a peer made up, or the few places would soon be taken', async () => {
    await propose('/made-up/2.0.0', false)
    expect(agreementIn(encodeTokens(...opening(['/made-up/2.0.0'])))).toBeUndefined()
    await propose('/ours/2.0.0', true)
    expect(agreementIn(encodeTokens(...opening(['/ours/2.0.0'])))?.protocol).toBe('/ours/2.0.0')
  })

  it('reads on behind na, and so may take data for a proposal: a dialer hears of na first and gives up', async () => {
    // go-multistream#20: why data goes with a proposal only when identify announced it.
    const [a, b] = pair()
    const answered = answer(b, (id) => id === '/admin')
    await a.write(concat([encodeTokens(...opening(['/gone'])), encodeToken('/admin'), fromUtf8('do it')]))
    expect((await answered).protocol).toBe('/admin')
    await expect(confirm(a, ['/gone'])).rejects.toMatchObject({ code: 'no-protocol' })
  })

  it('takes no other protocol for the one it proposed', async () => {
    agreement('/other')
    const [a, b] = pair()
    await b.write(encodeTokens(header, '/other'))
    await expect(select(a, ['/mine'])).rejects.toMatchObject({ code: 'bad-negotiation' })
  })

  it('gives the same result however the bytes are split', () => {
    const proposals = encodeTokens(header, '/no/1', '/no/2', '/yes/1.0.0')
    const answers = encodeTokens(header, 'na', '/b')
    const data = fromUtf8('data behind')
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 12 }), (cuts) => {
        const left = listener((id) => id.startsWith('/yes'))
        expect(feed(left, splits(concat([proposals, data]), cuts))).toEqual([
          header,
          'na',
          'na',
          '/yes/1.0.0',
          toHex(data),
        ])
        expect(left.outcome?.protocol).toBe('/yes/1.0.0')
        const right = dialer(['/a', '/b'])
        expect(feed(right, splits(concat([answers, data]), cuts))).toEqual(['/b', toHex(data)])
        expect(right.outcome?.protocol).toBe('/b')
      }),
    )
  })

  it('answers a header that comes alone at once', () => {
    const side = listener(() => true)
    expect(side.receive(encodeToken(header))).toEqual([header])
    expect(side.receive(encodeToken('/x'))).toEqual(['/x'])
  })

  it.each([
    ['another first line', encodeToken('/multistream/2.0.0'), 'bad-negotiation'],
    ['a token without a newline', fromHex('026161'), 'bad-negotiation'],
    ['an empty token', fromHex('00'), 'bad-negotiation'],
    ['a token longer than the first line, before its bytes came', fromUtf8('GET / HTTP/1.1'), 'oversized'],
    ['a length that is not minimal', fromHex('8100'), 'bad-varint'],
    ['text that is not UTF-8', fromHex('02ff0a'), 'bad-utf8'],
  ])('refuses %s', (_what, bytes, code) => {
    for (const side of [listener(() => true), dialer(['/x'])]) {
      side.receive(bytes)
      expect(side.outcome?.error).toMatchObject({ code })
    }
  })

  it('refuses a proposal over 1,024 bytes, before its bytes came', () => {
    const side = listener(() => true)
    side.receive(concat([encodeToken(header), fromHex('8108')]))
    expect(side.outcome?.error).toMatchObject({ code: 'oversized' })
  })

  it('refuses an answer that is neither the proposal nor na', () => {
    const side = dialer(['/x'])
    side.receive(encodeTokens(header, '/y'))
    expect(side.outcome?.error).toMatchObject({ code: 'bad-negotiation' })
  })

  it('gives up on a peer that proposes for ever', () => {
    const side = listener(() => false)
    side.receive(encodeToken(header))
    for (let i = 0; i < 64; i++) side.receive(encodeToken(`/p/${i}`))
    expect(side.outcome).toBeUndefined()
    side.receive(encodeToken('/p/64'))
    expect(side.outcome?.error).toMatchObject({ code: 'bad-negotiation' })
  })

  it('answers random bytes with a ProtocolError or waits', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const reader = new TokenReader()
        reader.push(bytes)
        try {
          for (let i = 0; i < 64 && reader.next() !== undefined; i++);
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
        const side = listener(() => false)
        side.receive(bytes)
        if (side.outcome?.error !== undefined) expect(side.outcome.error).toBeInstanceOf(ProtocolError)
      }),
    )
  })

  it('does not over-read: the next layer reads on from the same stream', async () => {
    const [a, b] = pair()
    const framed = new BufferedStream(b)
    const answered = answer(framed, () => true)
    await a.write(encodeTokens(...opening(['/x'])))
    await answered
    await a.write(fromUtf8('later'))
    expect(toUtf8(await framed.readExact(5))).toBe('later')
  })
})
