/** How far vectors turn. */

/** Mean of the cosine distances of rows, added up over batches. */
export class Distance {
  #sum = 0;
  #count = 0;
  /** Rows of `width`; a row of zeros has no direction and is left out. */
  add(a: Float32Array, b: Float32Array, width: number): void {
    for (let start = 0; start + width <= a.length; start += width) {
      let [dot, left, right] = [0, 0, 0];
      for (let i = start; i < start + width; i++) {
        const [x, y] = [a[i] as number, b[i] as number];
        dot += x * y;
        left += x * x;
        right += y * y;
      }
      if (left === 0 || right === 0) continue;
      this.#sum += 1 - dot / Math.sqrt(left * right);
      this.#count++;
    }
  }
  get mean(): number {
    return this.#count === 0 ? 0 : Math.max(0, this.#sum / this.#count);
  }
}
