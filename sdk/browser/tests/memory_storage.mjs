/** What the runtime uses of the Web Storage API, in memory; storage_contract.mjs compares it with a browser's. */
export class MemoryStorage {
  #items = new Map();
  #quota;

  /** `quota`: characters of keys and values together. */
  constructor(quota = Infinity) {
    this.#quota = quota;
  }

  get length() {
    return this.#items.size;
  }

  key(index) {
    return [...this.#items.keys()][index] ?? null;
  }

  getItem(key) {
    return this.#items.get(String(key)) ?? null;
  }

  setItem(key, value) {
    const others = [...this.#items].filter(([other]) => other !== String(key));
    const used = others.reduce((sum, [other, text]) => sum + other.length + text.length, 0);
    if (used + String(key).length + String(value).length > this.#quota) {
      throw new DOMException("The quota has been exceeded.", "QuotaExceededError");
    }
    this.#items.set(String(key), String(value));
  }

  removeItem(key) {
    this.#items.delete(String(key));
  }
}
