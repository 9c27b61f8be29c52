//! What a root needs to boot from the network.
