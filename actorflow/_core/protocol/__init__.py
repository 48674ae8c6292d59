"""What was said: messages, frames and the handshake. Sans-io: bytes in, messages out."""
