/* Bytes as text: the bases whose digits are bits (RFC 4648), and those that are one large number (base58btc, base36). */

export interface BaseText {
  encode(bytes: Uint8Array): string
  /** Throws SyntaxError for foreign characters and for text that encode never gives. */
  decode(text: string): Uint8Array
}

function digitsOf(alphabet: string): (text: string) => Uint8Array {
  const values = new Map(Array.from(alphabet, (digit, value) => [digit, value]))
  return (text) =>
    Uint8Array.from(text, (digit) => {
      const value = values.get(digit)
      if (value === undefined) throw new SyntaxError(`${JSON.stringify(digit)} is not one of its digits`)
      return value
    })
}

/** RFC 4648 without padding: each digit holds `bits` bits. */
export function bitBase(alphabet: string, bits: number): BaseText {
  const digits = digitsOf(alphabet)
  return {
    encode(bytes) {
      let text = ''
      let held = 0
      let size = 0
      for (const byte of bytes) {
        held = (held << 8) | byte
        size += 8
        while (size >= bits) {
          size -= bits
          text += alphabet[(held >> size) & ((1 << bits) - 1)]
        }
        held &= 0xff
      }
      return size === 0 ? text : text + alphabet[(held << (bits - size)) & ((1 << bits) - 1)]
    },
    decode(text) {
      const out = new Uint8Array((text.length * bits) >> 3)
      let at = 0
      let held = 0
      let size = 0
      for (const digit of digits(text)) {
        held = (held << bits) | digit
        size += bits
        if (size < 8) continue
        size -= 8
        out[at++] = held >> size
        held &= (1 << size) - 1
      }
      // §3.5: what is left of the last digit is zero, and less than a digit
      if (size >= bits || held !== 0) throw new SyntaxError('its last digit holds too much')
      return out
    },
  }
}

/** One number, high digits first; each leading zero byte is a leading zero digit. Quadratic in the length. */
export function numberBase(alphabet: string): BaseText {
  const digits = digitsOf(alphabet)
  return {
    encode: (bytes) => Array.from(converted(bytes, 256, alphabet.length), (digit) => alphabet[digit]).join(''),
    decode: (text) => converted(digits(text), alphabet.length, 256),
  }
}

function converted(digits: Uint8Array, from: number, to: number): Uint8Array {
  let zeros = 0
  while (digits[zeros] === 0) zeros++
  // Low digits first; `to` may need more of them than `from`.
  const out = new Uint8Array(Math.ceil(((digits.length - zeros) * Math.log(from)) / Math.log(to)) + 1)
  let size = 0
  for (const digit of digits.subarray(zeros)) {
    let carry = digit
    for (let i = 0; i < size || carry > 0; i++) {
      carry += (out[i] ?? 0) * from
      out[i] = carry % to
      carry = Math.floor(carry / to)
      if (i >= size) size = i + 1
    }
  }
  const all = new Uint8Array(zeros + size)
  all.set(out.subarray(0, size).toReversed(), zeros)
  return all
}
