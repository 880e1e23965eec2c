//! How a snapshot travels from the controller to the nodes, and to a node's disk: resources with names and versions, the
//! messages that carry them, and their encoding. It knows the model and no I/O.
