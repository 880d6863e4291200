"""auth's gRPC API: protobuf → domain → one operation → protobuf."""
