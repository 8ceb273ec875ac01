module weft.dev/tests/programs

go 1.19
