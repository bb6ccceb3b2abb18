package main

import "testing"

func TestPasswordHash(t *testing.T) {
	hash := hashPassword("correct horse")
	if err := checkPasswordHash(hash); err != nil {
		t.Fatal(err)
	}
	if !verifyPassword(hash, []byte("correct horse")) {
		t.Error("the password is refused")
	}
	if verifyPassword(hash, []byte("wrong")) || verifyPassword(hash, nil) {
		t.Error("a wrong password is taken")
	}
	// $2b$04$… of "bcrypt", made by htpasswd's algorithm
	if !isBcrypt("$2y$05$x") {
		t.Error("bcrypt is not known")
	}
}

func TestPasswordHashRefused(t *testing.T) {
	for _, hash := range []string{
		"", "secret", "$1$abc$def", "$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
		"$argon2id$v=19$m=99999999,t=3,p=4$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
		"$argon2id$v=19$m=64,t=0,p=4$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
		"$argon2id$v=19$m=64,t=1,p=4x$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
		"$argon2id$v=19$m=64,t=1,p=4$c2FsdHNhbHQ$", "$2y$99$x",
	} {
		if err := checkPasswordHash(hash); err == nil {
			t.Errorf("%q is taken for a hash", hash)
		}
		if verifyPassword(hash, []byte("secret")) {
			t.Errorf("%q lets in", hash)
		}
	}
}
