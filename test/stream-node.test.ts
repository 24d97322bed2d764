import { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, expect, it } from 'vitest'
import { settle } from '../src/env.ts'
import { pair } from '../src/stream.ts'
import { fromNode, toNode } from '../src/stream-node.ts'
import { isSettled, streamTable } from './stream-table.ts'

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values)

streamTable('fromNode over toNode over pair', () => {
  const [a, b] = pair()
  return [fromNode(toNode(a)), fromNode(toNode(b))]
})

describe('toNode', () => {
  it('runs in a pipeline, FIN included', async () => {
    const [a, b] = pair()
    const [c, d] = pair()
    const piping = pipeline(toNode(b), toNode(c))
    await a.write(bytesOf(1), bytesOf(2))
    await a.closeWrite()
    const got: number[] = []
    for await (const chunk of d) got.push(...chunk)
    expect(got).toEqual([1, 2])
    await d.closeWrite()
    await piping
    a.reset()
  })

  it('reads nothing ahead of what is asked for', async () => {
    const [a, b] = pair({ highWaterBytes: 10 })
    toNode(b).on('error', () => {})
    const writing = a.write(new Uint8Array(20))
    expect(await isSettled(writing)).toBe(false)
    a.reset()
    await expect(writing).rejects.toThrow()
  })

  it('destroy resets, a reset destroys', async () => {
    const [a, b] = pair()
    const duplex = toNode(b)
    duplex.on('error', () => {})
    const reason = new Error('enough')
    duplex.destroy(reason)
    expect((await b.closed).reason).toBe(reason)
    await expect(a.read()).rejects.toThrow('reset')

    const [c, d] = pair()
    const other = toNode(d)
    const failed = new Promise<Error>((resolve) => other.once('error', resolve))
    c.reset()
    expect((await failed).message).toContain('reset')
  })
})

describe('fromNode', () => {
  it('gives plain Uint8Arrays, and an error where the Duplex breaks', async () => {
    const duplex = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback() })
    const stream = fromNode(duplex)
    duplex.push(Buffer.from([1]))
    const chunk = await stream.read()
    expect(chunk?.constructor).toBe(Uint8Array)
    const reason = new Error('cable cut')
    duplex.destroy(reason)
    await expect(stream.read()).rejects.toThrow('cable cut')
    expect(await stream.closed).toEqual({ by: 'transport', code: 0, reason })
    await settle()
  })
})
