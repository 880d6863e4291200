import { Client, tolerate } from "./client";

// The build declares this binding in front of the bundle: code that is put after it reaches the runtime there.
declare let PulsegateRuntime: { Client: typeof Client; tolerate: typeof tolerate };
PulsegateRuntime = { Client, tolerate };
