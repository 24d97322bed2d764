import { describe, expect, it } from 'vitest'
import { KeepAlive } from '../../../src/mux/yamux/keepalive.ts'

describe('yamux keep-alive', () => {
  it('wants the first ping to ride along and the next after 30 s', () => {
    const pings = new KeepAlive(30_000, 10_000, 0)
    expect([pings.rides, pings.owed, pings.deadline]).toEqual([true, false, 30_000])
    expect(pings.send(5)).toBe(1)
    expect([pings.rides, pings.deadline]).toEqual([false, 10_005])
    expect(pings.reply(1, 17)).toBe(12)
    expect(pings.deadline).toBe(30_000)
    expect(pings.tick(30_000, 17)).toBeUndefined()
    expect(pings.owed).toBe(true)
  })

  it('gives up 10 s after a ping when nothing at all was heard since', () => {
    const pings = new KeepAlive(30_000, 10_000, 0)
    pings.send(0)
    expect(pings.tick(10_000, 0)?.code).toBe('timeout')
  })

  it('takes any byte for a sign of life', () => {
    const pings = new KeepAlive(30_000, 10_000, 0)
    pings.send(0)
    expect(pings.tick(10_000, 9000)).toBeUndefined()
    expect(pings.deadline).toBe(19_000)
    expect(pings.tick(19_000, 9000)?.timeoutMs).toBe(10_000)
  })

  it('gives up when a ping found no room for a whole interval', () => {
    const pings = new KeepAlive(30_000, 10_000, 0)
    expect(pings.tick(30_000, 0)).toBeUndefined()
    expect(pings.tick(60_000, 59_999)?.message).toContain('room to send')
  })

  it('ignores a reply that nobody asked for', () => {
    const pings = new KeepAlive(30_000, 10_000, 0)
    expect(pings.reply(0, 1)).toBeUndefined()
    pings.send(1)
    expect(pings.reply(2, 3)).toBeUndefined()
    expect(pings.reply(1, 3)).toBe(2)
    expect(pings.reply(1, 4)).toBeUndefined()
  })

  it('has no deadline at all when it is switched off', () => {
    const pings = new KeepAlive(Infinity, 10_000, 0)
    pings.send(0)
    expect(pings.deadline).toBe(Infinity)
  })
})
