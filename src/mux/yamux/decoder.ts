/* From bytes to frames. Bodies are handed on in the pieces in which they come: nothing is put together, nothing copied. */
import { decodeHeader, headerBytes, type Header } from './frame.ts'

export interface FrameSink {
  /** The header is reused for the next frame. Returns how many bytes of body follow; -1: hear no more. */
  frame(header: Header): number
  /** A piece of the body. */
  body(bytes: Uint8Array): void
  /** All of the body was there. Not called for frames without one. */
  bodyEnd(): void
}

export class FrameDecoder {
  readonly #sink: FrameSink
  readonly #header: Header = { version: 0, type: 0, flags: 0, id: 0, length: 0 }
  readonly #partial = new Uint8Array(headerBytes)
  #partialSize = 0
  #bodyLeft = 0

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  push(bytes: Uint8Array): void {
    const sink = this.#sink
    const end = bytes.length
    let at = 0
    while (at < end) {
      if (this.#bodyLeft > 0) {
        const size = Math.min(this.#bodyLeft, end - at)
        sink.body(size === end ? bytes : bytes.subarray(at, at + size))
        at += size
        this.#bodyLeft -= size
        if (this.#bodyLeft === 0) sink.bodyEnd()
        continue
      }
      if (this.#partialSize > 0 || end - at < headerBytes) {
        while (this.#partialSize < headerBytes && at < end) this.#partial[this.#partialSize++] = bytes[at++] as number
        if (this.#partialSize < headerBytes) return
        this.#partialSize = 0
        decodeHeader(this.#partial, 0, this.#header)
      } else {
        decodeHeader(bytes, at, this.#header)
        at += headerBytes
      }
      const body = sink.frame(this.#header)
      if (body < 0) return
      this.#bodyLeft = body
    }
  }
}
