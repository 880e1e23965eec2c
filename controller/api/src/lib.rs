//! Our own custom resources (group `pierhead.dev`), one kind per file, and the schemas that are generated from them.
