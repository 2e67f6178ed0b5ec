"""Whether servers that were made for jambonz can tell pylisten from it."""
