"""The tests of mod_listen and pylisten."""
