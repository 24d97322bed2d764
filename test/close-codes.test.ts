import { expect, it } from 'vitest'
import {
  codeOfConnection,
  codeOfStream,
  codeText,
  connectionCode,
  endError,
  streamCode,
  streamCodeOf,
} from '../src/close-codes.ts'
import { ClosedError, LimitError, ProtocolError, TimeoutError, UnavailableError } from '../src/errors.ts'

it('the two lists name the same reasons, shifted by one', () => {
  const shared = Object.entries(connectionCode).filter(([name]) => !name.startsWith('yamux'))
  expect(shared.map(([name, code]) => [name, streamCodeOf(code)])).toEqual(Object.entries(streamCode))
  // An application's own, and what yamux says of itself, stay what they are.
  expect([1, 2, 10_001, 0xffff_ffff].map(streamCodeOf)).toEqual([1, 2, 10_001, 0xffff_ffff])
})

it('a code has a text for the log', () => {
  expect(codeText('stream', 0x1002)).toBe('0x1002 resource limit exceeded')
  expect(codeText('connection', 0x1002)).toBe('0x1002 rate limited')
  expect(codeText('connection', 0x1006)).toBe('0x1006 shutdown')
  expect(codeText('connection', 1)).toBe('0x1 yamux protocol error')
  expect(codeText('stream', 0x2711)).toBe('0x2711')
})

it.each([
  [new LimitError('maxConnections', 1, 2), 0x1001, 0x1002],
  [new ProtocolError('bad-frame', 'm'), 0x1003, 0x1004],
  [new ProtocolError('bad-negotiation', 'm'), 0x1000, 0x1001],
  [new UnavailableError('no-protocol', 'm'), 0x1000, 0x1001],
  [new ClosedError('m', { by: 'local', code: 0 }, 'stopped'), 0x1006, 0x1007],
  [new TimeoutError('m', 1), 0, 0],
  [new Error('m'), 0, 0],
  [undefined, 0, 0],
])('%s ends a connection with %i and a stream with %i', (reason, connection, stream) => {
  expect([codeOfConnection(reason), codeOfStream(reason)]).toEqual([connection, stream])
})

it('an end says by whom and why', () => {
  expect(endError('connection', { by: 'remote', code: 0x1001 }).message).toBe(
    'connection closed by the remote: 0x1001 resource limit exceeded',
  )
  const reason = new Error('cable cut')
  expect(endError('stream', { by: 'transport', code: 0, reason }).message).toBe(
    'stream reset by the transport: cable cut',
  )
})
