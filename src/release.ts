/*
 * Memory given back by hand. Every 64 MB of array buffers V8 marks its whole heap, though each of ours is of no use a
 * moment after it was made: without this a tenth to a fifth of a bulk transfer is garbage collection.
 */

/** Bytes: what is smaller costs less to collect than to give back. */
export const worthReleasing = 16 * 1024

/**
 * Gives back the memory of `bytes`, which nobody may look at again: it is empty from now on. Does nothing where `bytes`
 * are a part of something larger. Danger: only for memory that was made in this process's own code a moment ago, or came
 * from a socket, and that no other reference is left to.
 */
export function release({ buffer, byteLength }: Uint8Array): void {
  if (byteLength < worthReleasing || buffer.byteLength !== byteLength) return
  if (buffer instanceof ArrayBuffer && typeof buffer.transfer === 'function') buffer.transfer(0)
}
