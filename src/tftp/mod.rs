//! The read-only TFTP server that Pis fetch their firmware and kernels from.
//!
//! One thread serves every transfer from an epoll loop; a transfer is a connected socket, an open file and a small
//! state machine. [`wire`] knows the packets, [`transfer`] the protocol, [`tree`] whose file a name means.

pub mod transfer;
pub mod wire;

#[cfg(test)]
mod simulation;
