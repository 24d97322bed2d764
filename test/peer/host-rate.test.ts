import { describe, expect, it } from 'vitest'
import { LimitError } from '../../src/errors.ts'
import { HostRate } from '../../src/peer/host-rate.ts'

const options = { maxInboundPerSecondPerHost: 2, maxInboundPerSecondPerLocalHost: Infinity }

const host = (i: number): string => `9.${i >> 16}.${(i >> 8) & 255}.${i & 255}`

describe('the rate of inbound connections', () => {
  it('is ten seconds’ worth at once, then so many a second, for each host by itself', () => {
    const rate = new HostRate(options)
    for (let i = 0; i < 20; i++) expect(rate.refusal('9.9.9.9', 0)).toBeUndefined()
    const refusal = rate.refusal('9.9.9.9', 0)
    expect(refusal).toBeInstanceOf(LimitError)
    expect(refusal).toMatchObject({ limit: 'maxInboundPerSecondPerHost', max: 2 })
    expect(rate.refusal('9.9.9.10', 0)).toBeUndefined()
    expect(rate.refusal('2606:4700::', 0)).toBeUndefined()
    expect(rate.refusal('9.9.9.9', 499)).toBeDefined()
    expect(rate.refusal('9.9.9.9', 500)).toBeUndefined()
    expect(rate.refusal('9.9.9.9', 500)).toBeDefined()
  })

  it('has a number of its own on loopback and in private networks, without limit unless told', () => {
    const local = ['127.0.0.1', '::1', '10.0.0.7', '192.168.1.1', 'fe80::', '/memory/1']
    const free = new HostRate(options)
    for (const host of local) for (let i = 0; i < 100; i++) expect(free.refusal(host, 0)).toBeUndefined()
    expect(free.size).toBe(0)
    const told = new HostRate({ ...options, maxInboundPerSecondPerLocalHost: 1 })
    for (const host of local) {
      for (let i = 0; i < 10; i++) expect(told.refusal(host, 0)).toBeUndefined()
      expect(told.refusal(host, 0)).toMatchObject({ limit: 'maxInboundPerSecondPerLocalHost', max: 1 })
    }
  })

  it('remembers 4,096 hosts, those that came last', () => {
    const rate = new HostRate({ ...options, maxInboundPerSecondPerHost: 0.1 })
    expect(rate.refusal(host(0), 0)).toBeUndefined()
    for (let i = 1; i < 10_000; i++) {
      rate.refusal(host(i), 0)
      expect(rate.refusal(host(0), 0)).toBeDefined()
    }
    expect(rate.size).toBe(4096)
    expect(rate.refusal(host(1), 0)).toBeUndefined()
  })
})
