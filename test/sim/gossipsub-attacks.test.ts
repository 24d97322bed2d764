/* The attacks of the v1.1 evaluation report, small; scripts/sim-gossip.ts has the larger ones, and their figures. */
import { describe, expect, it } from 'vitest'
import { attack, type AttackOptions } from './gossipsub-attacks.ts'

const few = { honest: 24, sybils: 96, honestDegree: 8, sybilDegree: 32, activationMs: 10_000 }
const base: Omit<AttackOptions, 'seed' | 'kind'> = { ...few, scoring: true, rate: 6, calmMs: 3_000, measureMs: 25_000 }

describe('Sybils on four of five connections that pass nothing on', () => {
  it.each([1, 2, 3, 4, 5])(
    'from the start keep less than 1% from the honest, and leave the meshes, seed %i',
    (seed) => {
      const { delivery, sybilLinks, p99, twice } = attack({ ...base, kind: 'cold boot', seed })
      expect(delivery).toBeGreaterThan(0.99)
      expect(twice).toBe(0)
      // Gossip alone would need a heartbeat.
      expect(p99).toBeLessThan(1_000)
      const [before, after] = sybilLinks
      expect(before).toBeGreaterThan(0.4)
      expect(after).toBeLessThan(before / 4)
    },
  )

  it('stay in the meshes where nothing is scored, and gossip makes up for them', () => {
    const { delivery, sybilLinks } = attack({
      ...base,
      scoring: false,
      floodPublish: false,
      kind: 'cold boot',
      seed: 1,
    })
    expect(delivery).toBeGreaterThan(0.99)
    expect(sybilLinks[1]).toBeGreaterThan(0.4)
  })

  it('after a while of good behaviour keep less than 1% from the honest', () => {
    const calm = { honest: 16, calmMs: 12_000, measureMs: 20_000, sybils: 32, sybilDegree: 12 }
    const { delivery, sybilLinks } = attack({ ...base, ...calm, kind: 'covert flash', seed: 1 })
    expect(delivery).toBeGreaterThan(0.99)
    expect(sybilLinks[0]).toBeGreaterThan(0.2)
  })

  it.each([1, 2, 3, 4, 5])('do not cut off the one node that they gather around, seed %i', (seed) => {
    const { delivery, sybilLinks } = attack({ ...base, sybilDegree: 96, kind: 'eclipse', seed })
    expect(delivery).toBe(1)
    expect(sybilLinks[1]).toBeLessThan(0.3)
  })
})
