import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fromHex, fromUtf8, toHex } from '../../../src/bytes.ts'
import { ProtocolError } from '../../../src/errors.ts'
import { FetchRequest, FetchResponse, maxIdentifierBytes, statusCode } from '../../../src/protocols/fetch/wire.ts'

describe('fetch messages', () => {
  // By hand from the schema: field 1 and 2 with wire type 2 are 0x0a and 0x12, field 1 with wire type 0 is 0x08.
  it.each([
    ['0a022f61', FetchRequest, { identifier: fromUtf8('/a') }],
    ['0a03ff00fe', FetchRequest, { identifier: fromHex('ff00fe') }],
    ['1203010203', FetchResponse, { status: undefined, data: fromHex('010203') }],
    ['0801', FetchResponse, { status: statusCode.notFound, data: undefined }],
    ['0802120161', FetchResponse, { status: statusCode.error, data: fromUtf8('a') }],
    ['', FetchResponse, { status: undefined, data: undefined }],
  ] as const)('are %s', (hex, type, value) => {
    expect(toHex(type.encode(value as never))).toBe(hex)
    expect(type.decode(fromHex(hex))).toEqual(value)
  })

  it('carry any bytes there and back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: maxIdentifierBytes }), fc.integer({ min: -5, max: 5 }), (data, status) => {
        expect(FetchRequest.decode(FetchRequest.encode({ identifier: data })).identifier).toEqual(data)
        expect(FetchResponse.decode(FetchResponse.encode({ status, data }))).toEqual({ status, data })
      }),
    )
  })

  it('throw ProtocolError or nothing, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        for (const type of [FetchRequest, FetchResponse]) {
          try {
            type.decode(bytes)
          } catch (error) {
            expect(error).toBeInstanceOf(ProtocolError)
          }
        }
      }),
    )
  })

  it('refuse a key that is too long', () => {
    const identifier = new Uint8Array(maxIdentifierBytes + 1)
    const bytes = new Uint8Array([0x0a, 0x81, 0x20, ...identifier])
    expect(() => FetchRequest.decode(bytes)).toThrow(ProtocolError)
  })
})
