//! Runs each program and compares what it prints with the text at its top.

testkit::programs! {
    apply_async
    chunk_size
    task_deadline
    global_state
    imap
    initializer
    leak
    map_async
    memory_limit
    progress
    segfault
    starmap
}
