;; A component whose function `main` asks wasi:config for `greeting` and logs what it gets through wasi:logging: the
;; value, `none`, or the error.
(component
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $plain (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $plain)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (import "wasi:config/store@0.2.0-rc.1" (instance $config
    (type $plain (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $error (eq $plain)))
    (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (data (i32.const 0) "greetingtestnoneerror"))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $bytes))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $log (canon lower (func $logging "log") (memory $bytes)))
  (core func $get (canon lower (func $config "get") (memory $bytes) (realloc $realloc)))
  (core module $main
    (import "host" "memory" (memory 1))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "host" "get" (func $get (param i32 i32 i32)))
    (func (export "main")
      (call $get (i32.const 0) (i32.const 8) (i32.const 1024))
      (if (i32.load8_u (i32.const 1024))
        (then (call $log (i32.const 4) (i32.const 16) (i32.const 5)
          (i32.load (i32.const 1032)) (i32.load (i32.const 1036))))
        (else (if (i32.load8_u (i32.const 1028))
          (then (call $log (i32.const 2) (i32.const 8) (i32.const 4)
            (i32.load (i32.const 1032)) (i32.load (i32.const 1036))))
          (else (call $log (i32.const 3) (i32.const 8) (i32.const 4) (i32.const 12) (i32.const 4))))))))
  (core instance $main (instantiate $main (with "host" (instance
    (export "memory" (memory $bytes)) (export "log" (func $log)) (export "get" (func $get))))))
  (func (export "main") (canon lift (core func $main "main"))))
