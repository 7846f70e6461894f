//! Runs each program and compares what it prints with the text at its top.

testkit::programs! {}
