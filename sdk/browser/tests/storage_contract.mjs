// Runs in Node over MemoryStorage and in a browser over localStorage. Returns what does not hold.
export function storageFaults(storage, moreThanQuota) {
  const faults = [];
  const expect = (what, holds) => void (holds || faults.push(what));
  const keys = () => Array.from(storage, (_, index) => storage.key(index)).sort();

  expect("starts empty", storage.length === 0 && keys().length === 0);
  storage.setItem("b", 1);
  storage.setItem("a", "x");
  storage.setItem("a", "y");
  expect("lists each key once", keys().join() === "a,b");
  expect("keeps the last value, as text", storage.getItem("a") === "y" && storage.getItem("b") === "1");
  storage.removeItem("a");
  storage.removeItem("never there");
  expect("has null for what is gone", storage.getItem("a") === null && storage.key(1) === null);
  let refused;
  try {
    storage.setItem("c", "x".repeat(moreThanQuota));
  } catch (error) {
    refused = error;
  }
  expect("throws over its quota", refused?.name === "QuotaExceededError");
  expect("is unchanged by what it refused", keys().join() === "b");
  storage.removeItem("b");
  return faults;
}
