import { describe, expect, it } from 'vitest'
import { release, worthReleasing } from '../src/release.ts'

describe('memory given back by hand', () => {
  it('empties what is whole and large', () => {
    const bytes = new Uint8Array(worthReleasing).fill(1)
    release(bytes)
    expect([bytes.length, bytes.buffer.byteLength]).toEqual([0, 0])
  })

  it('leaves alone what is small, or shares its memory', () => {
    const small = new Uint8Array(worthReleasing - 1)
    const whole = new Uint8Array(2 * worthReleasing)
    release(small)
    release(whole.subarray(0, worthReleasing))
    release(whole.subarray(worthReleasing))
    expect([small.length, whole.length]).toEqual([worthReleasing - 1, 2 * worthReleasing])
  })

  it('leaves memory alone that several threads share', () => {
    const shared = new Uint8Array(new SharedArrayBuffer(worthReleasing))
    release(shared)
    expect(shared.length).toBe(worthReleasing)
  })
})
