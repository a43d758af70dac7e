//! Top-level exports of a component: what an entry point `#run-me` calls.

// The exported symbols that the macro makes are `unsafe` by nature; our own code has none.
wit_bindgen::generate!({
    inline: "
        package sampan:guest;

        world exports {
            export run-me: func();
            export fails: func();
            export refuses: func() -> result;
            export add: func(a: u32, b: u32) -> u32;
        }
    ",
});

struct Exports;

impl Guest for Exports {
    fn run_me() {
        println!("hello from run-me");
    }

    fn fails() {
        panic!("run-me fails as asked");
    }

    fn refuses() -> Result<(), ()> {
        println!("run-me refuses as asked");
        Err(())
    }

    /// Takes parameters: the refusal of such an entry point is what it is for.
    fn add(a: u32, b: u32) -> u32 {
        a + b
    }
}

export!(Exports);
