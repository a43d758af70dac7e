use crate::process::Guest;

/// Each of these runs only where its feature is on; it exits with 0 by falling off its end.
#[test]
fn the_features_that_wasmtime_has_by_default_are_there() {
    for (feature, module) in [
        ("gc", "(module (type $s (struct (field i32)))
            (func (export \"_start\") (if (i32.ne (struct.get $s 0 (struct.new $s (i32.const 5))) (i32.const 5)) (then unreachable))))"),
        ("exceptions", "(module (tag $t (param i32))
            (func (export \"_start\") (drop (block $caught (result i32)
                (try_table (catch $t $caught) (throw $t (i32.const 1))) unreachable))))"),
        ("tail calls", "(module (func $down (param i32)
                (if (local.get 0) (then (return_call $down (i32.sub (local.get 0) (i32.const 1))))))
            (func (export \"_start\") (call $down (i32.const 10000000))))"),
        ("memory64", "(module (memory i64 1) (func (export \"_start\") (i64.store (i64.const 8) (i64.const 1))))"),
        ("multiple memories", "(module (memory 1) (memory $two 1) (func (export \"_start\") (i32.store $two (i32.const 0) (i32.const 1))))"),
        ("simd", "(module (func (export \"_start\") (drop (i32x4.add (v128.const i32x4 1 2 3 4) (v128.const i32x4 1 2 3 4)))))"),
        ("relaxed simd", "(module (func (export \"_start\") (drop (i8x16.relaxed_swizzle (v128.const i64x2 1 2) (v128.const i64x2 1 2)))))"),
        ("function references", "(module (type $f (func)) (elem declare func $g) (func $g)
            (func (export \"_start\") (call_ref $f (ref.func $g))))"),
        ("bulk memory", "(module (memory 1) (func (export \"_start\") (memory.fill (i32.const 0) (i32.const 1) (i32.const 9))))"),
        ("extended constants", "(module (global i32 (i32.add (i32.const 1) (i32.const 2))) (func (export \"_start\")))"),
    ] {
        let ended = Guest::new(module).run();
        assert_eq!(ended.code, Some(0), "{feature}: {}", ended.stderr);
    }
}
